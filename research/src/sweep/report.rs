//! Tables and pictures of a sweep's results.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::curves::{Comparison, Depths, NoDepths, between_seeds, compare, curves, depths};
use super::plot;
use super::point::{Point, kind_name};
use crate::bd_rate::Difference;
use midspan_cli::baselines::WITHOUT_CODEC;
use midspan_cli::files::print;
use midspan_cli::results;
use midspan_train::measure::rows::Rows;

/// Write tables and pictures of a sweep's results.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folder of the results.
    #[arg(long)]
    results: PathBuf,
    /// Folder that gets sweep.csv, sweep.json, pictures of the curves (entropy models of a recipe at a split, recipes at a
    /// split, splits) and of the rate over depth.
    #[arg(long)]
    out: PathBuf,
    /// Recipe whose proposed model the others are compared with: by BD-rate or, for single points, at equal loss.
    #[arg(long, default_value = "paper")]
    anchor: String,
}

/// Runs the command.
///
/// # Errors
/// One line for the user: there are no results, a file is not a result, or the folder cannot be written to.
pub(super) fn run(args: &ReportArgs) -> Result<()> {
    let points = results::load_all::<Point>(&args.results)?;
    if points.is_empty() {
        bail!("{}: no results", args.results.display());
    }
    let curves = curves(&points);
    let (comparisons, seeds) = (compare(&curves, &args.anchor), between_seeds(&curves));
    let depths = depths(&curves, &args.anchor);
    let groups: Vec<_> = curves
        .iter()
        .map(|(group, seeds)| {
            let points = |curve: &[&Point]| -> Vec<_> {
                curve.iter().map(|point| json!({"bits": point.bits(), "loss": point.loss()})).collect()
            };
            let seeds: BTreeMap<String, _> = seeds.iter().map(|(seed, c)| (seed.to_string(), points(c))).collect();
            json!({"curve": group.label(), "by_seed": seeds})
        })
        .collect();
    let report = json!({"curves": groups, "bd_rate": comparisons, "between_seeds": seeds, "depth": depths});
    std::fs::create_dir_all(&args.out)?;
    results::write(&args.out.join("sweep.csv"), &csv(&points))?;
    results::save(&args.out.join("sweep.json"), &report)?;
    plot::rate_distortion(&args.out, &curves, &points, &args.anchor)?;
    for (seed, depths) in depths.iter().filter_map(|(seed, depths)| Some((seed, depths.as_ref().ok()?))) {
        plot::rate_depth(&args.out.join(format!("rate-depth-seed{seed}.svg")), depths)?;
    }
    print(format_args!("{}{}{}", table(&comparisons), table(&seeds), depth_table(&depths)))
}

/// BD-rates as lines of text.
fn table(comparisons: &[Comparison]) -> String {
    let mut out = String::new();
    for comparison in comparisons {
        let mean = comparison.mean.map_or("none".into(), |mean| format!("{:+.1} %", 100.0 * mean));
        let seeds: Vec<String> = comparison
            .by_seed
            .iter()
            .map(|(seed, value)| match value {
                Ok(Difference { rate, overlap: Some(overlap) }) => {
                    format!("seed {seed} {:+.1} %, over {:.0} % of the anchor's losses", 100.0 * rate, 100.0 * overlap)
                }
                Ok(Difference { rate, overlap: None }) => format!("seed {seed} {:+.1} %, a single point", 100.0 * rate),
                Err(error) => format!("seed {seed} {error}"),
            })
            .collect();
        let _ = writeln!(out, "{} against {}: {mean} ({})", comparison.test, comparison.anchor, seeds.join("; "));
    }
    out
}

fn named(values: &BTreeMap<&'static str, f64>) -> String {
    values.iter().map(|(name, value)| format!("{name} {value:.3}")).collect::<Vec<String>>().join(", ")
}

/// Rates over the splits and their correlations as lines of text.
fn depth_table(depths: &BTreeMap<u64, Result<Depths, NoDepths>>) -> String {
    let mut out = String::new();
    for (seed, depths) in depths {
        match depths {
            Ok(Depths { loss, splits, correlation, over_all, at_lambda }) => {
                let bits: Vec<String> =
                    splits.iter().map(|depth| format!("{:.1} behind {}", depth.bits, depth.split)).collect();
                let _ = writeln!(out, "rate over depth, seed {seed}, loss {loss:.4}: {} bits a token", bits.join(", "));
                let _ =
                    writeln!(out, "  correlation of the rate, {} splits, with: {}", splits.len(), named(correlation));
                let _ = writeln!(out, "    over all codecs: {}", named(over_all));
                for (lambda, values) in at_lambda {
                    let _ = writeln!(out, "    at λ {lambda}: {}", named(values));
                }
            }
            Err(error) => {
                let _ = writeln!(out, "rate over depth, seed {seed}: {error}");
            }
        }
    }
    out
}

/// A table with one line for each point.
fn csv(points: &[Point]) -> String {
    let metrics = [
        "bits",
        "bits_w",
        "bits_y",
        "loss",
        "ppl",
        "unquantised_loss",
        "unquantised_ppl",
        "agreement",
        "divergence",
        "zeros",
    ];
    let links = WITHOUT_CODEC.map(Rows::name);
    let compressors = ["deflate -9", "zstd -19"];
    let mut out = String::from("recipe,entropy_model,split,lambda,seed,steps,tokens,seconds,decoder_multiplications");
    out.push_str(",rate_weight,float,bfloat16");
    for name in metrics.iter().chain(&compressors) {
        let _ = write!(out, ",{name}");
    }
    out.push_str(",last_word,last_word_unquantised,half_log_determinant,log_step,rademacher,log_lipschitz");
    for name in &links {
        let _ = write!(out, ",{name} bits,{name} ppl,{name} agreement,{name} divergence");
    }
    out.push('\n');
    for point in points {
        let model = point.entropy_model.map_or("control".into(), kind_name);
        let _ = write!(out, "{},{model},{},{}", point.recipe, point.host.split, point.lambda);
        let _ = write!(out, ",{},{},{},{:.1}", point.seed, point.steps, point.tokens, point.seconds);
        let bfloat16 = point.bfloat16.map_or(String::new(), |on| on.to_string());
        let _ = write!(out, ",{},{},{},{bfloat16}", point.decoder_multiplications, point.rate_weight, point.float);
        let mut add = |value: Option<f64>| match value {
            Some(value) => {
                let _ = write!(out, ",{value:.6}");
            }
            None => out.push(','),
        };
        metrics.iter().for_each(|name| add(point.metrics.get(*name).copied()));
        compressors.iter().for_each(|name| add(point.compressors.get(*name).copied()));
        (0..2).for_each(|i| add(point.last_word.map(|pair| pair[i])));
        add(point.gap.map(|gap| gap.half_log_determinant));
        add(point.gap.and_then(|gap| gap.log_step));
        add(point.gap.map(|gap| gap.rademacher));
        add(point.gap.map(|gap| gap.log_lipschitz));
        for name in &links {
            for figure in ["bits", "ppl", "agreement", "divergence"] {
                add(point.without_codec.get(name).and_then(|figures| figures.get(figure)).copied());
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::curves::tests::point;
    use super::*;
    use midspan_train::codec::entropy_model::Kind;

    #[test]
    fn every_line_has_every_column() {
        let mut control = point("paper", Kind::Proposed, 4, 1, (2048.0, 3.2));
        control.entropy_model = None;
        control.gap = None;
        let text = csv(&[point("paper", Kind::Fourier, 4, 1, (100.0, 3.5)), control]);
        let columns: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [columns[0]; 3], "{text}");
        assert!(text.contains("paper,fourier,4,") && text.contains("paper,control,4,"));
    }
}
