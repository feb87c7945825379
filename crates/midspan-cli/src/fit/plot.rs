//! A chart of how many predicted tokens change, over bits a token.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use plotters::prelude::SeriesLabelPosition;

use super::super::chart::{Chart, Curve, Mark, log_range};
use super::point::Point;

/// The palette's black, for what is the same for all codecs.
const OTHER: usize = 6;

/// Draws a line for every recipe, split and seed of one host and text. Crosses of the same colour show zstd on the same
/// integers. Black crosses show links without a codec, one for each split.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn changed(path: &Path, points: &[Point]) -> Result<()> {
    let mut groups: BTreeMap<(usize, &str, u64), Vec<&Point>> = BTreeMap::new();
    for point in points {
        groups.entry((point.split, &point.recipe, point.seed)).or_default().push(point);
    }
    let seeds: BTreeSet<u64> = points.iter().map(|point| point.seed).collect();
    let (mut curves, mut marks) = (Vec::new(), Vec::new());
    let (mut linked, mut named) = (BTreeSet::new(), BTreeSet::new());
    // Only the first cross of a name is labelled.
    let mut mark = |name: &str, at: (f64, f64), colour: usize| {
        let name = if named.insert(name.to_string()) { name.to_string() } else { String::new() };
        marks.push(Mark { name, at, colour });
    };
    let mut frames_a_chunk = 0;
    for (colour, ((split, recipe, seed), mut group)) in groups.into_iter().enumerate() {
        group.sort_by(|a, b| bits(a).total_cmp(&bits(b)));
        let points = group.iter().map(|point| (bits(point), changes(point, agreement(point)))).collect();
        let seed = if seeds.len() > 1 { format!(", seed {seed}") } else { String::new() };
        let colour = colour % OTHER;
        curves.push(Curve { label: Some(format!("split {split}, {recipe}{seed}")), points, colour });
        for point in &group {
            frames_a_chunk = frames_a_chunk.max(point.frozen.batches.last().map_or(0, |batch| batch.batch));
            mark("zstd -19", (point.frozen.zstd_bits, changes(point, agreement(point))), colour);
        }
        if let Some(point) = group.first().filter(|_| linked.insert(split))
            && let Some(task) = &point.frozen.task
        {
            for (name, link) in &task.without_codec {
                mark(name, (link.bits, changes(point, link.greedy_agreement)), OTHER);
            }
        }
    }
    let all: Vec<(f64, f64)> =
        curves.iter().flat_map(|curve| curve.points.clone()).chain(marks.iter().map(|mark| mark.at)).collect();
    let host = points.first().map_or("", |point| &point.host);
    let chart = Chart {
        caption: format!("{host}, unchanged: real bytes, chunks of {frames_a_chunk} frames"),
        axes: ["bits a token", "% of tokens whose likeliest successor changes"],
        ranges: [log_range(all.iter().map(|at| at.0), 0.05), log_range(all.iter().map(|at| at.1), 0.05)],
        log: [true, true],
        legend: SeriesLabelPosition::LowerLeft,
        curves,
        marks,
        levels: Vec::new(),
    };
    chart.save(path)
}

/// Bits a token in the longest chunks.
fn bits(point: &Point) -> f64 {
    point.frozen.batches.last().map_or(f64::NAN, |batch| batch.bits)
}

fn agreement(point: &Point) -> f64 {
    point.frozen.task.as_ref().map_or(f64::NAN, |task| task.greedy_agreement)
}

/// Percent of the tokens that change, given the agreement. No change counts as half a token, because the axis has no 0.
fn changes(point: &Point, agreement: f64) -> f64 {
    let least = 0.5 / point.frozen.frames.max(1) as f64;
    100.0 * (1.0 - agreement).clamp(least, 1.0)
}
