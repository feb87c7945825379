//! Charts of curves and marks, as SVG.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::combinators::BindKeyPoints;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::results::write;

const SIZE: (u32, u32) = (820, 540);

/// Colours that colour-blind people can distinguish too (M. Okabe and K. Ito, 2002).
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    BLACK,
    RGBColor(153, 153, 153),
];

fn colour(index: usize) -> RGBAColor {
    PALETTE[index % PALETTE.len()].to_rgba()
}

/// A line with a point at every value.
pub struct Curve {
    /// Name in the legend; `None` if another curve of the same colour is already named there.
    pub label: Option<String>,
    /// x and y, in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// Which of the palette's colours.
    pub colour: usize,
}

/// A cross with a name next to it, which may be empty.
pub struct Mark {
    /// The name.
    pub name: String,
    /// x and y.
    pub at: (f64, f64),
    /// Which of the palette's colours.
    pub colour: usize,
}

/// Curves, marks and horizontal lines over one pair of axes.
pub struct Chart {
    /// Title.
    pub caption: String,
    /// Names of the axes.
    pub axes: [&'static str; 2],
    /// Ranges of the axes.
    pub ranges: [Range<f64>; 2],
    /// Which axes are logarithmic.
    pub log: [bool; 2],
    /// Corner of the legend.
    pub legend: SeriesLabelPosition,
    /// Curves.
    pub curves: Vec<Curve>,
    /// Marks.
    pub marks: Vec<Mark>,
    /// Heights of the horizontal lines.
    pub levels: Vec<f64>,
}

/// Range of some values with a margin on both sides, given as a fraction of their spread.
pub fn range(values: impl Iterator<Item = f64> + Clone, margin: f64) -> Range<f64> {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    let margin = margin * (high - low).max(1e-9);
    low - margin..high + margin
}

/// [`range`] of positive values for a logarithmic axis.
pub fn log_range(values: impl Iterator<Item = f64> + Clone, margin: f64) -> Range<f64> {
    let logarithms = range(values.map(f64::ln), margin);
    logarithms.start.exp()..logarithms.end.exp()
}

/// Round values for the ticks of a logarithmic axis: the fewer decades there are, the more ticks
/// each decade gets.
fn log_ticks(range: &Range<f64>) -> Vec<f64> {
    let decades = (range.end / range.start).log10();
    let steps: &[f64] = match decades {
        d if d < 0.8 => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        d if d < 2.0 => &[1.0, 2.0, 3.0, 5.0],
        _ => &[1.0],
    };
    let (first, last) = (range.start.log10().floor() as i32, range.end.log10().ceil() as i32);
    let all = (first..=last).flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
    all.filter(|tick| range.contains(tick)).collect()
}

impl Chart {
    /// Draws the chart into a file. An existing file is replaced only once the picture is complete.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let [x, y] = self.ranges.clone();
        let log = |range: Range<f64>| range.clone().log_scale().with_key_points(log_ticks(&range));
        let mut svg = String::new();
        let drawn = match self.log {
            [false, false] => self.draw(&mut svg, x, y),
            [true, false] => self.draw(&mut svg, log(x), y),
            [false, true] => self.draw(&mut svg, x, log(y)),
            [true, true] => self.draw(&mut svg, log(x), log(y)),
        };
        drawn.map_err(|error| anyhow!("{}: {error}", path.display()))?;
        write(path, &svg)
    }

    fn draw<X, Y>(&self, svg: &mut String, x: X, y: Y) -> std::result::Result<(), Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let [ends, _] = self.ranges.clone();
        let mut chart: ChartContext<'_, _, Cartesian2d<X::CoordDescType, Y::CoordDescType>> = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(56)
            .caption(&self.caption, ("sans-serif", 17))
            .build_cartesian_2d(x, y)?;
        let [x_name, y_name] = self.axes;
        let short = |x: &f64| format!("{}", (x * 1e6).round() / 1e6);
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(x_name).y_desc(y_name).light_line_style(WHITE);
        mesh.x_label_formatter(&short).y_label_formatter(&short).draw()?;
        for curve in &self.curves {
            let colour = colour(curve.colour);
            let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)).point_size(3);
            let drawn = chart.draw_series(line)?;
            if let Some(label) = &curve.label {
                let sample = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3));
                drawn.label(label).legend(sample);
            }
        }
        for mark in &self.marks {
            let colour = colour(mark.colour);
            let drawn = EmptyElement::at(mark.at)
                + Cross::new((0, 0), 4, colour.stroke_width(2))
                + Text::new(mark.name.clone(), (6, 4), ("sans-serif", 12));
            chart.draw_series([drawn])?;
        }
        for &level in &self.levels {
            chart.draw_series(LineSeries::new([(ends.start, level), (ends.end, level)], BLACK.stroke_width(1)))?;
        }
        chart
            .configure_series_labels()
            .position(self.legend.clone())
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
        Ok(())
    }
}
