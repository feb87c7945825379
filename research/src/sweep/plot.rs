//! Rate–distortion curves, and the rate over depth.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::SeriesLabelPosition;

use super::curves::{Curves, Depths, Group};
use super::point::{Point, kind_name};
use midspan_cli::chart::{Chart, Curve, log_range, range};
use midspan_train::codec::entropy_model::Kind;

/// The curves of one picture.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Picture {
    /// The prefix of its files' names.
    name: String,
    /// Title.
    caption: String,
    /// The groups of its curves, each with its name in the legend.
    groups: Vec<(Group, String)>,
}

/// The pictures to draw: the entropy models of a recipe at each split, the recipes at each split, and the anchor's
/// splits.
fn pictures(curves: &Curves<'_>, anchor: &str) -> Vec<Picture> {
    let mut out: Vec<Picture> = Vec::new();
    let mut add = |name: String, caption: String, group: &Group, label: String| {
        let at = out.iter().position(|picture| picture.name == name).unwrap_or_else(|| {
            out.push(Picture { name, caption, groups: Vec::new() });
            out.len() - 1
        });
        out[at].groups.push((group.clone(), label));
    };
    for group in curves.keys() {
        let Group { recipe, model, split } = group;
        let name = format!("models-{recipe}-split{split}");
        add(name, format!("Entropy models, recipe {recipe}, split {split}"), group, kind_name(*model));
        if *model == Kind::Proposed {
            add(format!("recipes-split{split}"), format!("Recipes, split {split}"), group, recipe.clone());
        }
        if *model == Kind::Proposed && recipe == anchor {
            add(format!("splits-{recipe}"), format!("Splits, recipe {recipe}"), group, format!("split {split}"));
        }
    }
    // A picture with a single curve is drawn only if no picture compares several curves.
    let compares = |picture: &Picture| picture.groups.len() > 1;
    let any = out.iter().any(compares);
    out.retain(|picture| compares(picture) || !any && picture.name.starts_with("models-"));
    out
}

/// The quantity that a picture shows over bits a token.
struct Measure {
    /// The suffix of its files' names.
    suffix: &'static str,
    axis: &'static str,
    /// Returns None if it was not measured.
    value: fn(&Point) -> Option<f64>,
    legend: SeriesLabelPosition,
}

/// Perplexity, agreement and the last word's accuracy, each over bits a token: pictures with a line for every group and
/// seed and, if there is a control, its perplexity and accuracy.
///
/// # Errors
/// A file cannot be written.
pub(super) fn rate_distortion(folder: &Path, curves: &Curves<'_>, points: &[Point], anchor: &str) -> Result<()> {
    use SeriesLabelPosition::{LowerRight, UpperRight};
    let agreement = |point: &Point| point.entropy_model.and_then(|_| point.metrics.get("agreement").copied());
    let measures = [
        Measure { suffix: "", axis: "perplexity", value: |point| Some(point.loss().exp()), legend: UpperRight },
        Measure { suffix: "-agreement", axis: "same likeliest token", value: agreement, legend: LowerRight },
        Measure {
            suffix: "-last-word",
            axis: "LAMBADA, last word right",
            value: |point| point.last_word.map(|[through, _]| through),
            legend: LowerRight,
        },
    ];
    let pictures = pictures(curves, anchor);
    for (measure, picture) in measures.iter().flat_map(|measure| pictures.iter().map(move |picture| (measure, picture)))
    {
        let mut lines = Vec::new();
        for (colour, (group, label)) in picture.groups.iter().enumerate() {
            for curve in curves[group].values() {
                let at = |point: &&Point| Some((point.bits(), (measure.value)(point)?));
                let points: Vec<(f64, f64)> = curve.iter().filter_map(at).collect();
                let named = lines.iter().any(|line: &Curve| line.colour == colour);
                if !points.is_empty() {
                    lines.push(Curve { label: (!named).then(|| label.clone()), points, colour });
                }
            }
        }
        let all: Vec<(f64, f64)> = lines.iter().flat_map(|curve| curve.points.clone()).collect();
        if all.is_empty() {
            continue;
        }
        let controls = points.iter().filter(|point| point.entropy_model.is_none());
        let levels: Vec<f64> = controls.filter_map(measure.value).collect();
        let heights = all.iter().map(|at| at.1).chain(levels.iter().copied());
        let chart = Chart {
            caption: picture.caption.clone(),
            axes: ["bits a token", measure.axis],
            ranges: [log_range(all.iter().map(|at| at.0), 0.05), range(heights, 0.05)],
            log: [true, false],
            legend: measure.legend.clone(),
            curves: lines,
            marks: Vec::new(),
            levels,
        };
        chart.save(&folder.join(format!("{}{}.svg", picture.name, measure.suffix)))?;
    }
    Ok(())
}

/// Rate over the split at equal loss, together with the gap's measures, each scaled to the same height.
///
/// # Errors
/// A file cannot be written.
pub(super) fn rate_depth(path: &Path, depths: &Depths) -> Result<()> {
    let mut series: Vec<(&str, Vec<f64>)> = vec![
        ("bits a token", depths.splits.iter().map(|depth| depth.bits).collect()),
        ("covariance log-determinant", depths.splits.iter().map(|depth| depth.half_log_determinant).collect()),
        ("Rademacher complexity", depths.splits.iter().map(|depth| depth.rademacher).collect()),
    ];
    let of_hidden_states: Vec<f64> = depths.splits.iter().map(|depth| depth.of_hidden_states).collect();
    if of_hidden_states.iter().all(|value| !value.is_nan()) {
        series.push(("log-determinant in the host's units", of_hidden_states));
    }
    let curves = series.iter().enumerate().map(|(colour, (name, values))| {
        let range = range(values.iter().copied(), 0.0);
        let scaled = |value: &f64| (value - range.start) / (range.end - range.start).max(f64::MIN_POSITIVE);
        let points = depths.splits.iter().zip(values).map(|(depth, value)| (depth.split as f64, scaled(value)));
        let label = format!("{name}, {:.2} to {:.2}", range.start, range.end);
        Curve { label: Some(label), points: points.collect(), colour }
    });
    let last = depths.splits.iter().map(|depth| depth.split).max().unwrap_or(1) as f64;
    let chart = Chart {
        caption: format!("Rate and depth at a loss of {:.3} nats", depths.loss),
        axes: ["blocks before the split", "from the least to the largest"],
        ranges: [0.5..last + 0.5, -0.05..1.15],
        log: [false, false],
        legend: SeriesLabelPosition::UpperLeft,
        curves: curves.collect(),
        marks: Vec::new(),
        levels: Vec::new(),
    };
    chart.save(path)
}

#[cfg(test)]
mod tests {
    use super::super::curves::curves;
    use super::super::curves::tests::point;
    use super::*;

    #[test]
    fn every_question_has_a_picture() {
        let in_group = |recipe, model, split| point(recipe, model, split, 1, (100.0, 3.5));
        let all = [
            in_group("paper", Kind::Proposed, 4),
            in_group("paper", Kind::Fourier, 4),
            in_group("paper", Kind::Proposed, 6),
            in_group("wide", Kind::Proposed, 4),
        ];
        let found = pictures(&curves(&all), "paper");
        let named = |name: &str| {
            let picture = found.iter().find(|picture| picture.name == name);
            picture.map(|picture| picture.groups.iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>())
        };
        assert_eq!(named("models-paper-split4"), Some(vec!["proposed", "fourier"]));
        assert_eq!(named("recipes-split4"), Some(vec!["paper", "wide"]));
        assert_eq!(named("splits-paper"), Some(vec!["split 4", "split 6"]));
        assert_eq!(found.len(), 3, "nothing stands beside the proposed model at split 6");
        assert_eq!(pictures(&curves(&all[..1]), "paper").len(), 1, "what is alone is shown");
    }
}
