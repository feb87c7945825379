//! A bar chart of the bits of a token, and a chart of agreement over bits for all qualities.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::chart::{Chart, Curve, Mark, log_range};
use crate::measure::Report;
use crate::results::write;

const WIDTH: i32 = 760;
const ROW: i32 = 34;
const LEFT: i32 = 190;
const TOP: i32 = 56;
const HYPER_PRIOR: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const TARGET: RGBColor = RGBColor(0x6b, 0xae, 0xd6);
const OVERHEAD: RGBColor = RGBColor(0xfd, 0x8d, 0x3c);
const OTHER: RGBColor = RGBColor(0xb0, 0xb0, 0xb0);

/// Draws the agreement of every quality over its bits in the longest chunks, with links without a codec for comparison.
///
/// # Errors
/// The file cannot be written, or the reports lack the second half's figures.
pub(super) fn qualities(path: &Path, reports: &[Report]) -> Result<()> {
    let missing = || anyhow!("nothing was measured of what the second half makes of the frames");
    let mut points = Vec::with_capacity(reports.len());
    for report in reports {
        let longest = report.batches.iter().max_by_key(|batch| batch.batch).ok_or_else(missing)?;
        let task = report.task.as_ref().ok_or_else(missing)?;
        points.push((longest.bits, 100.0 * task.greedy_agreement));
    }
    let links = reports.first().and_then(|report| report.task.as_ref()).map(|task| &task.without_codec);
    let marks: Vec<Mark> = links
        .into_iter()
        .flatten()
        .map(|(name, link)| Mark { name: name.clone(), at: (link.bits, 100.0 * link.greedy_agreement), colour: 1 })
        .collect();
    let all: Vec<(f64, f64)> = points.iter().copied().chain(marks.iter().map(|mark| mark.at)).collect();
    let low = all.iter().map(|at| at.1).fold(100.0, f64::min);
    let chart = Chart {
        caption: "Qualities of one model: agreement of the likeliest token".into(),
        axes: ["bits a token", "%"],
        ranges: [log_range(all.iter().map(|at| at.0), 0.08), low - 1.0..100.5],
        log: [true, false],
        legend: SeriesLabelPosition::LowerRight,
        curves: vec![Curve { label: Some("midspan".into()), points, colour: 0 }],
        marks,
        levels: Vec::new(),
    };
    chart.save(path)
}

/// A labelled bar of coloured parts, each with its bits.
struct Bar {
    label: String,
    parts: Vec<(f64, RGBColor)>,
}

/// Draws the bits a token for hidden states of `width` values: links without a codec and general compressors, then
/// every chunk size, split into hyper-prior, target and overhead.
///
/// Bars longer than one and a half times the longest of Deflate, zstd and the chunk sizes are cut off.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn bits(path: &Path, width: usize, report: &Report) -> Result<()> {
    let baselines =
        [("raw f16", 16.0 * width as f64), ("deflate -9", report.deflate_bits), ("zstd -19", report.zstd_bits)];
    let mut bars: Vec<Bar> =
        baselines.into_iter().map(|(name, bits)| Bar { label: name.into(), parts: vec![(bits, OTHER)] }).collect();
    for batch in &report.batches {
        let label = if batch.batch == 1 {
            "midspan, frame by frame".to_string()
        } else {
            format!("midspan, {} frames a chunk", batch.batch)
        };
        let parts = vec![
            (batch.hyper_prior_bits, HYPER_PRIOR),
            (batch.target_bits, TARGET),
            (batch.overhead_bits.max(0.0), OVERHEAD),
        ];
        bars.push(Bar { label, parts });
    }
    let sum = |bar: &Bar| bar.parts.iter().map(|(bits, _)| bits).sum::<f64>();
    // Raw f16, the first bar, would leave no room for the others.
    let longest = bars.iter().skip(1).map(sum).fold(1.0, f64::max) * 1.5;
    let height = TOP + ROW * bars.len() as i32 + 16;
    let mut svg = String::new();
    draw(&mut svg, &bars, longest, height).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    write(path, &svg)
}

fn draw(
    svg: &mut String,
    bars: &[Bar],
    longest: f64,
    height: i32,
) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let area = SVGBackend::with_string(svg, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE).map_err(|e| text(&e))?;
    let font = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    let right = font(14).pos(Pos::new(HPos::Right, VPos::Center));
    let left = font(14).pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new("Bits a token", (LEFT, 16), font(16).pos(Pos::new(HPos::Left, VPos::Center))))
        .map_err(|e| text(&e))?;
    let mut at = LEFT;
    for (name, colour) in [("hyper-prior", HYPER_PRIOR), ("target", TARGET), ("framing and termination", OVERHEAD)] {
        area.draw(&Rectangle::new([(at, 34), (at + 12, 46)], colour.filled())).map_err(|e| text(&e))?;
        area.draw(&Text::new(name, (at + 18, 40), left.clone())).map_err(|e| text(&e))?;
        at += 46 + 8 * name.len() as i32;
    }
    let scale = f64::from(WIDTH - LEFT - 90) / longest;
    for (i, bar) in bars.iter().enumerate() {
        let middle = TOP + ROW * i as i32 + ROW / 2;
        area.draw(&Text::new(bar.label.as_str(), (LEFT - 10, middle), right.clone())).map_err(|e| text(&e))?;
        let mut bits = 0.0;
        for (part, colour) in &bar.parts {
            let x = |bits: f64| LEFT + (bits.min(longest) * scale) as i32;
            let corners = [(x(bits), middle - 11), (x(bits + part), middle + 11)];
            area.draw(&Rectangle::new(corners, colour.filled())).map_err(|e| text(&e))?;
            bits += part;
        }
        let end = LEFT + (bits.min(longest) * scale) as i32 + 8;
        let label = if bits > longest { format!("{bits:.0} …") } else { format!("{bits:.1}") };
        area.draw(&Text::new(label, (end, middle), left.clone())).map_err(|e| text(&e))?;
    }
    area.present().map_err(|e| text(&e))?;
    Ok(())
}
