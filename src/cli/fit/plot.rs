//! Agreement over bits a token.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use plotters::prelude::SeriesLabelPosition;

use super::super::chart::{Chart, Curve, Mark, log_range};
use super::point::Point;
use crate::train::runner::Metrics;

/// A line for every recipe and split, of the frozen codec where there is one; links without a codec as marks in the
/// split's colour.
///
/// # Errors
/// A file that cannot be written.
pub fn agreement(path: &Path, points: &[Point]) -> Result<()> {
    let mut groups: BTreeMap<(&str, usize), Vec<&Point>> = BTreeMap::new();
    for point in points {
        groups.entry((&point.recipe, point.split)).or_default().push(point);
    }
    let (mut curves, mut marks) = (Vec::new(), Vec::new());
    let mut marked = BTreeSet::new();
    for (colour, ((recipe, split), mut group)) in groups.into_iter().enumerate() {
        group.sort_by(|a, b| a.figure("bits").total_cmp(&b.figure("bits")));
        let points = group.iter().map(|point| at(point.frozen.as_ref().unwrap_or(&point.metrics))).collect();
        curves.push(Curve { label: Some(format!("{recipe}, split {split}")), points, colour });
        // The same for all recipes; a name at the first of them.
        let links = group.first().filter(|_| marked.insert(split)).map(|point| &point.without_codec);
        for (name, figures) in links.into_iter().flatten() {
            let name = if marked.len() == 1 { name.clone() } else { String::new() };
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
