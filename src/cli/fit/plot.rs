//! Agreement over bits a token, as SVG.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::point::Point;

const SIZE: (u32, u32) = (820, 540);

/// A line for every split; links without a codec as marks in the split's colour.
///
/// # Errors
/// A file that cannot be written.
pub fn agreement(path: &Path, points: &[Point]) -> Result<()> {
    draw(path, points).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw(path: &Path, points: &[Point]) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut splits: BTreeMap<usize, Vec<&Point>> = BTreeMap::new();
    for point in points {
        splits.entry(point.split).or_default().push(point);
    }
    let share = |agreement: f64| 100.0 * agreement;
    let beside = |point: &Point| -> Vec<(String, f64, f64)> {
        let figure = |figures: &BTreeMap<String, f64>, name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
        let link = |(name, figures): (&String, &BTreeMap<String, f64>)| {
            (name.clone(), figure(figures, "bits"), share(figure(figures, "agreement")))
        };
        point.without_codec.iter().map(link).collect()
    };
    let (mut low, mut left, mut right) = (100.0_f64, f64::INFINITY, 0.0_f64);
    for point in points {
        let own = (String::new(), point.figure("bits"), share(point.figure("agreement")));
        for (_, bits, agreement) in beside(point).into_iter().chain([own]) {
            (low, left, right) = (low.min(agreement), left.min(bits), right.max(bits));
        }
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .caption("A host that does not change: agreement of the likeliest token", ("sans-serif", 17))
        .build_cartesian_2d((left / 1.2..right * 1.2).log_scale(), low - 1.0..100.5)?;
    chart.configure_mesh().x_desc("bits a token").y_desc("%").light_line_style(WHITE).draw()?;
    for (i, (split, curve)) in splits.iter_mut().enumerate() {
        curve.sort_by(|a, b| a.figure("bits").total_cmp(&b.figure("bits")));
        let colour = Palette99::pick(i).to_rgba();
        let line = curve.iter().map(|point| (point.figure("bits"), share(point.figure("agreement"))));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(3))?
            .label(format!("split {split}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        let Some(first) = curve.first() else { continue };
        for (name, bits, agreement) in beside(first) {
            let mark = EmptyElement::at((bits, agreement))
                + Cross::new((0, 0), 4, colour.stroke_width(2))
                + Text::new(if i == 0 { name } else { String::new() }, (6, 4), ("sans-serif", 12));
            chart.draw_series([mark])?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
