//! Rate–distortion curves, and the rate over depth.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::SeriesLabelPosition;

use super::super::chart::{Chart, Curve, log_range, range};
use super::curves::{Curves, Depths};
use super::point::Point;

/// Perplexity over bits a token: a line for every group and seed, and where there is a control its perplexity.
///
/// # Errors
/// A file that cannot be written.
pub fn rate_distortion(path: &Path, groups: &Curves<'_>, points: &[Point]) -> Result<()> {
    let mut curves = Vec::new();
    for (colour, (group, seeds)) in groups.iter().enumerate() {
        for (n, curve) in seeds.values().enumerate() {
            let label = (n == 0).then(|| group.label());
            let points = curve.iter().map(|point| (point.bits(), point.loss().exp())).collect();
            curves.push(Curve { label, points, colour });
        }
    }
    let levels: Vec<f64> =
        points.iter().filter(|point| point.entropy_model.is_none()).map(|point| point.loss().exp()).collect();
    let all: Vec<(f64, f64)> = curves.iter().flat_map(|curve| curve.points.clone()).collect();
    let perplexities = all.iter().map(|at| at.1).chain(levels.iter().copied());
    let chart = Chart {
        caption: "Rate and distortion".into(),
        axes: ["bits a token", "perplexity"],
        ranges: [log_range(all.iter().map(|at| at.0), 0.05), range(perplexities, 0.05)],
        log_x: true,
        legend: SeriesLabelPosition::UpperRight,
        curves,
        marks: Vec::new(),
        levels,
    };
    chart.save(path)
}

/// Rate over the split at equal loss; the gap's measures beside it, each scaled to the same height.
///
/// # Errors
/// A file that cannot be written.
pub fn rate_depth(path: &Path, depths: &Depths) -> Result<()> {
    let series: [(&str, Vec<f64>); 3] = [
        ("rate", depths.splits.iter().map(|depth| depth.bits).collect()),
        ("covariance log-determinant", depths.splits.iter().map(|depth| depth.half_log_determinant).collect()),
        ("Rademacher complexity", depths.splits.iter().map(|depth| depth.rademacher).collect()),
    ];
    let curves = series.iter().enumerate().map(|(colour, (name, values))| {
        let of = range(values.iter().copied(), 0.0);
        let scaled = |value: &f64| (value - of.start) / (of.end - of.start);
        let points = depths.splits.iter().zip(values).map(|(depth, value)| (depth.split as f64, scaled(value)));
        let label = format!("{name}, {:.2} to {:.2}", of.start, of.end);
        Curve { label: Some(label), points: points.collect(), colour }
    });
    let last = depths.splits.iter().map(|depth| depth.split).max().unwrap_or(1) as f64;
    let chart = Chart {
        caption: format!("Rate and depth at a loss of {:.3} nats", depths.loss),
        axes: ["blocks before the split", "from the least to the largest"],
        ranges: [0.5..last + 0.5, -0.05..1.15],
        log_x: false,
        legend: SeriesLabelPosition::UpperLeft,
        curves: curves.collect(),
        marks: Vec::new(),
        levels: Vec::new(),
    };
    chart.save(path)
}
