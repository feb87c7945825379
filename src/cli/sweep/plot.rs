//! Rate–distortion curves, and the rate over depth, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::curves::{Curves, Depths};
use super::point::Point;

const SIZE: (u32, u32) = (820, 540);

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn named(path: &Path, drawn: Drawn) -> Result<()> {
    drawn.map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// Smallest and largest of some values, a little apart from them.
fn range(values: impl Iterator<Item = f64> + Clone, margin: f64) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    let margin = margin * (high - low).max(1e-9);
    (low - margin, high + margin)
}

/// Perplexity over bits a token: a line for every group and seed, and where there is a control its perplexity.
///
/// # Errors
/// A file that cannot be written.
pub fn rate_distortion(path: &Path, curves: &Curves<'_>, points: &[Point]) -> Result<()> {
    named(path, draw_curves(path, curves, points))
}

fn draw_curves(path: &Path, curves: &Curves<'_>, points: &[Point]) -> Drawn {
    let all: Vec<(f64, f64)> =
        points.iter().filter(|p| p.entropy_model.is_some()).map(|p| (p.bits(), p.loss().exp())).collect();
    let controls: Vec<f64> =
        points.iter().filter(|point| point.entropy_model.is_none()).map(|point| point.loss().exp()).collect();
    let (left, right) = range(all.iter().map(|point| point.0.ln()), 0.05);
    let (bottom, top) = range(all.iter().map(|point| point.1).chain(controls.iter().copied()), 0.05);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .caption("Rate and distortion", ("sans-serif", 17))
        .build_cartesian_2d((left.exp()..right.exp()).log_scale(), bottom..top)?;
    chart.configure_mesh().x_desc("bits a token").y_desc("perplexity").light_line_style(WHITE).draw()?;
    for (i, (group, seeds)) in curves.iter().enumerate() {
        let colour = Palette99::pick(i).to_rgba();
        for (n, curve) in seeds.values().enumerate() {
            let line = curve.iter().map(|point| (point.bits(), point.loss().exp()));
            let drawn = chart.draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)).point_size(3))?;
            if n == 0 {
                let sample = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3));
                drawn.label(group.label()).legend(sample);
            }
        }
    }
    for control in controls {
        let line = LineSeries::new([(left.exp(), control), (right.exp(), control)], BLACK.stroke_width(1));
        chart.draw_series(line)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Rate over the split at equal loss; the gap's measures beside it, each scaled to the same height.
///
/// # Errors
/// A file that cannot be written.
pub fn rate_depth(path: &Path, depths: &Depths) -> Result<()> {
    named(path, draw_depths(path, depths))
}

fn draw_depths(path: &Path, depths: &Depths) -> Drawn {
    let series: [(&str, Vec<f64>); 3] = [
        ("rate", depths.splits.iter().map(|depth| depth.bits).collect()),
        ("covariance log-determinant", depths.splits.iter().map(|depth| depth.half_log_determinant).collect()),
        ("Rademacher complexity", depths.splits.iter().map(|depth| depth.rademacher).collect()),
    ];
    let last = depths.splits.iter().map(|depth| depth.split).max().unwrap_or(1) as f64;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .caption(format!("Rate and depth at a loss of {:.3} nats", depths.loss), ("sans-serif", 17))
        .build_cartesian_2d(0.5..last + 0.5, -0.05..1.15)?;
    chart
        .configure_mesh()
        .x_desc("blocks before the split")
        .y_desc("from the least to the largest")
        .light_line_style(WHITE)
        .draw()?;
    for (i, (name, values)) in series.iter().enumerate() {
        let (low, high) = range(values.iter().copied(), 0.0);
        let colour = Palette99::pick(i).to_rgba();
        let scaled = depths.splits.iter().zip(values).map(|(d, v)| (d.split as f64, (v - low) / (high - low)));
        let label = format!("{name}, {low:.2} to {high:.2}");
        chart
            .draw_series(LineSeries::new(scaled, colour.stroke_width(2)).point_size(3))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
