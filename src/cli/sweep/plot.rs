//! Rate–distortion curves, and the rate over depth.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::SeriesLabelPosition;

use super::super::chart::{Chart, Curve, log_range, range};
use super::curves::{Curves, Depths, Group};
use super::point::{Point, kind_name};
use crate::train::codec::entropy_model::Kind;

/// Curves that stand in one picture.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Picture {
    /// The file, without its folder.
    file: String,
    /// Title.
    caption: String,
    /// Which curves, each with its name in the legend.
    groups: Vec<(Group, String)>,
}

/// What is drawn: the entropy models of a recipe at each split, the recipes at each split, the anchor's splits.
fn pictures(curves: &Curves<'_>, anchor: &str) -> Vec<Picture> {
    let mut out: Vec<Picture> = Vec::new();
    let mut add = |file: String, caption: String, group: &Group, label: String| {
        let at = out.iter().position(|picture| picture.file == file).unwrap_or_else(|| {
            out.push(Picture { file, caption, groups: Vec::new() });
            out.len() - 1
        });
        out[at].groups.push((group.clone(), label));
    };
    for group in curves.keys() {
        let Group { recipe, model, split } = group;
        let file = format!("models-{recipe}-split{split}.svg");
        add(file, format!("Entropy models, recipe {recipe}, split {split}"), group, kind_name(*model).into());
        if *model == Kind::Proposed {
            add(format!("recipes-split{split}.svg"), format!("Recipes, split {split}"), group, recipe.clone());
        }
        if *model == Kind::Proposed && recipe == anchor {
            add(format!("splits-{recipe}.svg"), format!("Splits, recipe {recipe}"), group, format!("split {split}"));
        }
    }
    // One curve alone says something in one of them.
    out.retain(|picture| {
        picture.groups.len() > 1 || picture.file.starts_with("models-") && picture.groups[0].0.recipe == anchor
    });
    out
}

/// Perplexity over bits a token: pictures of lines for every group and seed, and where there is a control its perplexity.
///
/// # Errors
/// A file that cannot be written.
pub fn rate_distortion(folder: &Path, curves: &Curves<'_>, points: &[Point], anchor: &str) -> Result<()> {
    let levels: Vec<f64> =
        points.iter().filter(|point| point.entropy_model.is_none()).map(|point| point.loss().exp()).collect();
    for Picture { file, caption, groups } in pictures(curves, anchor) {
        let mut lines = Vec::new();
        for (colour, (group, label)) in groups.iter().enumerate() {
            for (n, curve) in curves[group].values().enumerate() {
                let label = (n == 0).then(|| label.clone());
                let points = curve.iter().map(|point| (point.bits(), point.loss().exp())).collect();
                lines.push(Curve { label, points, colour });
            }
        }
        let all: Vec<(f64, f64)> = lines.iter().flat_map(|curve| curve.points.clone()).collect();
        let perplexities = all.iter().map(|at| at.1).chain(levels.iter().copied());
        let chart = Chart {
            caption,
            axes: ["bits a token", "perplexity"],
            ranges: [log_range(all.iter().map(|at| at.0), 0.05), range(perplexities, 0.05)],
            log_x: true,
            legend: SeriesLabelPosition::UpperRight,
            curves: lines,
            marks: Vec::new(),
            levels: levels.clone(),
        };
        chart.save(&folder.join(file))?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::curves::curves;
    use super::super::curves::tests::point;
    use super::*;

    #[test]
    fn every_question_has_a_picture() {
        let of = |recipe, model, split| point(recipe, model, split, 1, (100.0, 3.5));
        let all = [
            of("paper", Kind::Proposed, 4),
            of("paper", Kind::Fourier, 4),
            of("paper", Kind::Proposed, 6),
            of("wide", Kind::Proposed, 4),
        ];
        let found = pictures(&curves(&all), "paper");
        let named = |file: &str| {
            let picture = found.iter().find(|picture| picture.file == file);
            picture.map(|picture| picture.groups.iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>())
        };
        assert_eq!(named("models-paper-split4.svg"), Some(vec!["proposed", "fourier"]));
        assert_eq!(named("models-paper-split6.svg"), Some(vec!["proposed"]));
        assert_eq!(named("recipes-split4.svg"), Some(vec!["paper", "wide"]));
        assert_eq!(named("splits-paper.svg"), Some(vec!["split 4", "split 6"]));
        assert_eq!(found.len(), 4);
    }
}
