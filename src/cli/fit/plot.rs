//! Agreement over bits a token.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use plotters::prelude::SeriesLabelPosition;

use super::super::chart::{Chart, Curve, Mark, log_range};
use super::point::Point;
use crate::train::runner::Metrics;

/// A line for every split; links without a codec as marks in the split's colour.
///
/// # Errors
/// A file that cannot be written.
pub fn agreement(path: &Path, points: &[Point]) -> Result<()> {
    let mut splits: BTreeMap<usize, Vec<&Point>> = BTreeMap::new();
    for point in points {
        splits.entry(point.split).or_default().push(point);
    }
    let (mut curves, mut marks) = (Vec::new(), Vec::new());
    for (colour, (split, mut of_split)) in splits.into_iter().enumerate() {
        of_split.sort_by(|a, b| a.figure("bits").total_cmp(&b.figure("bits")));
        let points = of_split.iter().map(|point| at(&point.metrics)).collect();
        curves.push(Curve { label: Some(format!("split {split}")), points, colour });
        for (name, figures) in of_split.first().into_iter().flat_map(|point| &point.without_codec) {
            let name = if colour == 0 { name.clone() } else { String::new() };
            marks.push(Mark { name, at: at(figures), colour });
        }
    }
    let all: Vec<(f64, f64)> =
        curves.iter().flat_map(|curve| curve.points.clone()).chain(marks.iter().map(|mark| mark.at)).collect();
    let low = all.iter().map(|at| at.1).fold(100.0, f64::min);
    let chart = Chart {
        caption: "A host that does not change: agreement of the likeliest token".into(),
        axes: ["bits a token", "%"],
        ranges: [log_range(all.iter().map(|at| at.0), 0.05), low - 1.0..100.5],
        log_x: true,
        legend: SeriesLabelPosition::LowerRight,
        curves,
        marks,
        levels: Vec::new(),
    };
    chart.save(path)
}

/// Bits a token, and agreement in percent.
fn at(figures: &Metrics) -> (f64, f64) {
    let figure = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    (figure("bits"), 100.0 * figure("agreement"))
}
