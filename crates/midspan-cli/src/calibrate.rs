//! `midspan calibrate`: a codec for a host that does not change, in seconds.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::bundle::Bundle;
use super::command::repeating_command;
use super::files::{
    Output, held_out, input_name, is_standard, keep_inputs, model_files, no_standard, remove_parts_on_signals, tell,
};
use super::terminal::say;
use midspan::adapter::hex;
use midspan::codec::{Codec, EncoderConfig};
use midspan::model::prediction::Prediction;
use midspan::model::side::{Side, VOCABULARY_MAX};
use midspan::model::{CodecModel, Map};
use midspan::wire::{CheckWidth, Identity};
use midspan_host::llama::Llama;
use midspan_host::llama_tokenizer::LlamaTokenizer;
use midspan_host::split::SplitHost;
use midspan_train::calibrate::capture::Capture;
use midspan_train::calibrate::expected::{Expected, expected};
use midspan_train::calibrate::{Calibration, MapKind, RATE_WEIGHT, Stage, WIDTH_MAX};
use midspan_train::context;
use midspan_train::data::HeldOut;
use midspan_train::measure::frozen::FrozenLink;
use midspan_train::measure::{Link, evaluate};

/// Make a codec for a host that does not change, in seconds and without learning: from captured hidden states, or from
/// a host that the program can run.
///
/// The table has a row for each of --distortion: `bits a frame` with one frame a chunk, `in batches` with 128; `asked`,
/// the share of the variance that rounding was to lose, and `distortion`, what encoders that weigh bits lose on the
/// frames held out, both as the sensitivity weighs it; the mean `cosine` of hidden states after and before.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["states", "llama", "host"])))]
pub(crate) struct CalibrateArgs {
    /// Captured hidden states: .safetensors files with `hidden` F32, F16 or BF16 [T, E], E at most 8,190, and optionally
    /// `starts` [S] (first frames of sequences), `ids` [T] (tokens) and `sensitivity` F32 [E, E]. The last tenth is held
    /// out and measured.
    #[arg(long, num_args = 1..)]
    states: Vec<PathBuf>,
    /// A host: a llama2.c model file (legacy version).
    #[arg(long, requires_all = ["tokenizer", "split", "text"])]
    llama: Option<PathBuf>,
    /// Its tokenizer, as llama2.c writes it.
    #[arg(long, requires = "llama", conflicts_with_all = ["states", "host"])]
    tokenizer: Option<PathBuf>,
    /// Blocks before the split.
    #[arg(long, requires = "llama", conflicts_with_all = ["states", "host"])]
    split: Option<usize>,
    /// A host of `midspan train` and `freeze`: its folder.
    #[arg(long, requires = "text")]
    host: Option<PathBuf>,
    /// Text that the host reads; - for standard input. The last tenth is held out and measured.
    #[arg(long)]
    text: Option<PathBuf>,
    /// How many bytes of the text are read.
    #[arg(long, default_value_t = 1 << 18, conflicts_with = "states")]
    text_bytes: usize,
    /// The codec file that is written; - for standard output, if that is no terminal.
    #[arg(long)]
    out: PathBuf,
    /// Qualities: shares of the hidden states' variance that rounding may lose, weighted by the sensitivity if it is
    /// known. Quality 0 is the first and coarsest. With a rate weight a little more is lost.
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',', default_value = "0.1,0.03,0.01,0.003,0.001,0.0003")]
    distortion: Vec<f64>,
    /// Weight of one bit when encoders choose Y, in squared steps of error.
    #[arg(long, default_value_t = RATE_WEIGHT)]
    rate_weight: f64,
    /// Make a codec that takes no side indices. Otherwise one takes the tokens of frames where they are known: both ends
    /// must then give them.
    #[arg(long)]
    no_side: bool,
    /// Make a codec that does not predict from the frames before. By default a codec with full maps does where that saves
    /// enough, as in speech. A codec that predicts cannot be used in layered mode.
    #[arg(long)]
    no_prediction: bool,
    /// How many tokens there are. Default: those of the host, or one more than the largest in the captured files.
    #[arg(long, conflicts_with = "no_side")]
    vocabulary: Option<usize>,
    /// The linear maps on each side of the quantiser. Default: full up to a width of 1,024, sparse above. Sparse ones take
    /// at most 200 multiplications a channel to decode and 400 to encode; and more bits, from 1 % at fine qualities to
    /// half as many again at the coarsest.
    #[arg(long)]
    map: Option<MapKind>,
    /// Seed of the draws that estimate the sensitivity of a host.
    #[arg(long, default_value_t = 1, conflicts_with = "states")]
    seed: u64,
    /// Threads.
    #[arg(long, default_value_t = Calibration::default().threads)]
    threads: usize,
    /// Print the result as a JSON object.
    #[arg(long)]
    json: bool,
}

/// The result.
#[derive(Serialize)]
struct Report {
    /// The command that repeats it, with files without their folders.
    command: String,
    fingerprint: String,
    bytes: usize,
    /// Frames that the codec was made of.
    frames: usize,
    width: usize,
    multiplications: Multiplications,
    /// Whether errors were weighted by what the second half notices.
    sensitivity: bool,
    /// How many side indices the codec takes; 0 if it takes none.
    vocabulary: u32,
    /// Of how many frames they decide what a frame is expected to be, its own included.
    ages: usize,
    /// How many frames back the codec predicts from; 0 if it does not.
    predicted_from: usize,
    /// The rank of what other channels tell.
    rank: usize,
    seconds: f64,
    /// Whether the second half is at hand.
    #[serde(skip)]
    with_host: bool,
    qualities: Vec<Row>,
}

/// What the maps cost for each channel of a frame.
#[derive(Serialize)]
struct Multiplications {
    /// After the quantiser.
    decode: f64,
    /// In an encoder: a full map before the quantiser; both sparse ones, twice where Y is chosen by its rate.
    encode: f64,
}

impl Multiplications {
    fn new(model: &CodecModel) -> Self {
        let width = model.hidden_width() as f64;
        let entries = |map: Option<&Map>| match map {
            None => 0.0,
            Some(Map::Full(map)) => map.len() as f64,
            Some(Map::Sparse(map)) => map.index.len() as f64,
        };
        let (after, before) = (entries(model.synthesis()), entries(model.analysis()));
        let runs = if model.rate_weight(0) > 0.0 { 2.0 } else { 1.0 };
        let encode = match model.synthesis().and_then(Map::sparse) {
            Some(_) => runs * (after + before),
            None => before,
        };
        Self { decode: after / width, encode: encode / width }
    }
}

#[derive(Serialize)]
struct Row {
    /// The share of the variance that was asked for.
    asked: f64,
    #[serde(flatten)]
    expected: Expected,
    /// Nats by which the predictions change, where the second half is at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    divergence: Option<f64>,
    /// Share of positions where the likeliest token stays the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<f64>,
}

/// A host with its text.
struct Source {
    host: Box<dyn SplitHost>,
    name: String,
    ids: Vec<u32>,
    held_out: HeldOut,
}

/// Runs the command.
///
/// # Errors
/// One line that says what failed.
pub(crate) fn run(args: &CalibrateArgs) -> Result<()> {
    remove_parts_on_signals();
    let calibration =
        Calibration::default().distortions(args.distortion.clone()).rate_weight(args.rate_weight).threads(args.threads);
    let calibration = calibration.side(!args.no_side).prediction(!args.no_prediction).vocabulary(args.vocabulary);
    let calibration = calibration.map(args.map);
    calibration.check()?;
    let inputs = args.states.iter().chain(&args.text).chain(&args.llama).chain(&args.tokenizer).cloned();
    no_standard("--states", &args.states)?;
    if is_standard(&args.out) && std::io::stdout().is_terminal() {
        bail!("--out -: standard output is a terminal");
    }
    keep_inputs([&args.out], inputs.chain(model_files(args.host.as_deref())))?;
    let clock = Instant::now();
    let bar = ProgressBar::new(Stage::ALL.len() as u64 + 2);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
        bar.set_style(style);
    }
    let step = |message: &str| {
        bar.set_message(message.to_string());
        bar.inc(1);
    };
    step("hidden states");
    let source = source(args)?;
    let (capture, held_out) = match &source {
        Some(source) => (
            Capture::from_host(&*source.host, &source.ids, args.seed, args.threads)?,
            Capture::from_host_alone(&*source.host, &source.held_out.ids, args.threads)?,
        ),
        None => {
            let capture = Capture::load(&args.states)?;
            if capture.frames() < 3 {
                bail!("{} captured frames: at least 3 are needed, one of them held out", capture.frames());
            }
            capture.hold_out(10)
        }
    };
    for dtype in &capture.converted {
        bar.suspend(|| say(&format!("{dtype:?} hidden states are taken as f32")));
    }
    if capture.frames() < capture.width {
        let (frames, width) = (capture.frames(), capture.width);
        bar.suspend(|| say(&format!("{frames} frames are few for {width} channels: capture ten times {width}")));
    }
    let own =
        source.as_ref().map_or_else(|| capture.vocabulary().max(held_out.vocabulary()), |source| source.host.vocab());
    let vocabulary = args.vocabulary.unwrap_or(own).clamp(1, VOCABULARY_MAX);
    let calibration = calibration.vocabulary(Some(vocabulary));
    let unknown = capture.ids.iter().flatten().filter(|id| **id as usize >= vocabulary).count();
    if args.vocabulary.is_some() && unknown > 0 {
        let frames = capture.frames();
        bar.suspend(|| {
            say(&format!("--vocabulary {vocabulary}: {unknown} of {frames} tokens are beyond and say nothing"))
        });
    }
    let model = calibration.run(&capture, &mut |stage| step(stage.name()));
    let of =
        || args.states.first().or(args.llama.as_ref()).or(args.host.as_ref()).map(|path| path.display().to_string());
    let model = model.with_context(|| of().unwrap_or_default())?;
    let taken = model.side().map_or(0, |side| side.vocabulary() as usize);
    if capture.ids.is_some() && !args.no_side && taken < vocabulary {
        bar.suspend(|| match taken {
            0 => say("the tokens tell next to nothing of these hidden states: the codec takes no side indices"),
            _ => say(&format!("of {vocabulary} tokens the first {taken} are side indices; the others say nothing")),
        });
    }
    let beyond = capture.beyond() + held_out.beyond();
    if beyond > 0 && !args.no_side {
        bar.suspend(|| say(&format!("{beyond} frames have tokens of {VOCABULARY_MAX} or more, which say nothing")));
    }
    let host = match &source {
        Some(source) => source.name.clone(),
        None => [&capture.host, &capture.split].into_iter().flatten().cloned().collect::<Vec<_>>().join(", "),
    };
    let bytes = if host.is_empty() { model.to_bytes() } else { model.to_bytes_for(&host) };
    let fingerprint = hex(&model.fingerprint());
    let codec = Arc::new(Codec::new(model)?);
    let seconds = clock.elapsed().as_secs_f64();
    step("measuring");
    let rows = measured(args, source.as_ref(), &codec, &held_out)?;
    let mut out = Output::create(&args.out)?;
    out.write_bytes(&bytes)?;
    let standard = out.is_standard();
    out.commit()?;
    bar.finish_and_clear();
    if let Some(missed) = missed(&rows, capture.sensitivity.is_some()) {
        say(&missed);
    }
    let report = Report {
        command: repeating_command(&[]),
        fingerprint,
        bytes: bytes.len(),
        frames: capture.frames(),
        width: capture.width,
        multiplications: Multiplications::new(codec.model()),
        sensitivity: capture.sensitivity.is_some(),
        vocabulary: codec.model().side().map_or(0, |side| side.vocabulary()),
        ages: codec.model().side().map_or(0, Side::ages),
        predicted_from: codec.model().predicted_from(),
        rank: codec.model().prediction().map_or(0, Prediction::rank),
        seconds,
        with_host: source.is_some(),
        qualities: rows,
    };
    let text =
        if args.json { format!("{}\n", serde_json::to_string_pretty(&report)?) } else { shown(&report, &args.out) };
    tell(standard, format_args!("{text}"))
}

/// The host, if one is to be run, with its text split in two.
fn source(args: &CalibrateArgs) -> Result<Option<Source>> {
    let Some(text) = &args.text else { return Ok(None) };
    let (host, name, whole): (Box<dyn SplitHost>, String, HeldOut) = match (&args.llama, &args.host) {
        (Some(path), _) => {
            let (Some(tokenizer), Some(split)) = (&args.tokenizer, args.split) else {
                bail!("--llama takes --tokenizer and --split")
            };
            let bytes = std::fs::read(path).map_err(context(path))?;
            let host = Llama::from_bytes(&bytes, split).with_context(|| path.display().to_string())?;
            let tokenizer = LlamaTokenizer::load(tokenizer, host.vocab())?;
            let whole = held_out(text, args.text_bytes, |text| Ok(tokenizer.encode(text)))?;
            (Box::new(host), format!("{}, split {split}", name_of(path)), whole)
        }
        (None, Some(folder)) => {
            let bundle = Bundle::load(Some(folder))?;
            let whole =
                held_out(text, args.text_bytes, |text| Ok(bundle.tokenizer.encode_long(text, args.threads)?))?;
            let name = format!("{}, split {}", name_of(folder), bundle.gpt.config().split);
            (Box::new(bundle.gpt), name, whole)
        }
        (None, None) => bail!("--text is for a host: --llama or --host"),
    };
    let tokens = whole.ids.len();
    if tokens < 20 {
        bail!("{}: {tokens} tokens: at least 20 are needed, a tenth of them held out", input_name(text));
    }
    if host.width() > WIDTH_MAX {
        bail!("hidden states of {} values, more than {WIDTH_MAX}", host.width());
    }
    let kept = tokens - tokens / 10;
    let bytes = whole.bytes * (tokens - kept) / tokens.max(1);
    let (ids, rest) = whole.ids.split_at(kept);
    Ok(Some(Source { host, name, ids: ids.to_vec(), held_out: HeldOut { ids: rest.to_vec(), bytes } }))
}

/// A quality counts as missed if it loses more than so many times what was asked for.
const MISSED: f64 = 2.0;
/// The finest quality's least mean cosine of hidden states after and before.
const COSINE: f64 = 0.5;

/// The warning of a codec that does not do on the held-out frames what was asked for.
fn missed(rows: &[Row], sensitivity: bool) -> Option<String> {
    let lost = |row: &Row| row.expected.distortion.unwrap_or(0.0);
    let missed: Vec<&Row> = rows.iter().filter(|row| lost(row) > MISSED * row.asked).collect();
    let cosine = rows.last().map_or(1.0, |row| row.expected.cosine);
    let found = match missed.first() {
        Some(row) => format!(
            "{} of {} qualities lose more than twice what was asked for on the held-out frames, quality {} {:.4} for {}",
            missed.len(),
            rows.len(),
            row.expected.quality,
            lost(row),
            row.asked
        ),
        None if cosine < COSINE => format!("the finest quality keeps a cosine of only {cosine:.3}"),
        None => return None,
    };
    let more = if sensitivity { "" } else { ", or capture a `sensitivity`, which says how little they matter" };
    Some(format!(
        "warning: {found}. A few frames may be far from all others, as the first of a sequence is in many models, or the \
         captured frames too few: leave such frames out{more}, or capture more"
    ))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Figures of every quality on what was held out.
fn measured(args: &CalibrateArgs, source: Option<&Source>, codec: &Arc<Codec>, held_out: &Capture) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = expected(codec, held_out, args.threads)?
        .into_iter()
        .zip(&args.distortion)
        .map(|(expected, asked)| Row { asked: *asked, expected, divergence: None, agreement: None })
        .collect();
    let Some(source) = source else { return Ok(rows) };
    let links = (0..rows.len()).map(|quality| {
        let config = EncoderConfig::new(Identity::none()).quality(quality as u8).check(CheckWidth::None);
        FrozenLink::new(codec.clone(), &config)
    });
    let links = links.collect::<Result<Vec<_>, _>>()?;
    let links: Vec<&dyn Link> = links.iter().map(|link| link as &dyn Link).collect();
    let figures = evaluate(&*source.host, &links, &source.held_out, args.threads)?;
    for (row, figures) in rows.iter_mut().zip(figures) {
        row.divergence = figures.get("divergence").copied();
        row.agreement = figures.get("agreement").copied();
    }
    Ok(rows)
}

/// The report for people.
fn shown(report: &Report, out: &Path) -> String {
    let mut text = String::new();
    let Report { bytes, frames, width, seconds, .. } = report;
    told(
        &mut text,
        format_args!("{}: {bytes} bytes, of {frames} frames of width {width}, in {seconds:.1} s\n", out.display()),
    );
    let Multiplications { decode, encode } = report.multiplications;
    told(
        &mut text,
        format_args!("the maps take {decode:.0} multiplications a channel to decode and {encode:.0} to encode\n"),
    );
    let measured = report.qualities.first().map_or(0, |row| row.expected.frames);
    let known = report.with_host;
    told(&mut text, format_args!("on {measured} held-out frames:\n"));
    let more = if known { "  divergence  agreement" } else { "" };
    told(&mut text, format_args!("quality  bits a frame  in batches     asked  distortion  cosine{more}\n"));
    for Row { asked, expected, divergence, agreement } in &report.qualities {
        let Expected { quality, bits, bits_in_batches, cosine, .. } = expected;
        let distortion = expected.distortion.map_or("–".into(), |share| format!("{share:.6}"));
        let more = match (divergence, agreement) {
            (Some(divergence), Some(agreement)) => format!("  {divergence:>10.5}  {:>7.2} %", 100.0 * agreement),
            _ => String::new(),
        };
        told(
            &mut text,
            format_args!(
                "{quality:>7}  {bits:>12.1}  {bits_in_batches:>10.1}  {asked:>8}  {distortion:>10}  {cosine:>6.4}{more}\n"
            ),
        );
    }
    if report.vocabulary > 0 {
        let frames = if report.ages > 1 {
            format!("of a frame and of {} before it", report.ages - 1)
        } else {
            "of a frame".into()
        };
        let tokens = report.vocabulary;
        told(
            &mut text,
            format_args!(
                "the codec takes side indices, {tokens} tokens, {frames}: both ends know them, and the bits count none\n"
            ),
        );
    }
    if report.predicted_from > 0 {
        let (frames, rank) = (report.predicted_from, report.rank);
        told(
            &mut text,
            format_args!(
                "the codec predicts from {frames} frames before, with rank {rank} between channels: not for layered mode\n"
            ),
        );
    }
    let clipped: u64 = report.qualities.iter().map(|row| row.expected.clipped).sum();
    if clipped > 0 {
        told(&mut text, format_args!("{clipped} elements were clipped\n"));
    }
    if !known {
        told(&mut text, format_args!("divergence was not measured: there is no second half\n"));
    }
    text
}

/// Appends to a text.
fn told(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = text.write_fmt(more);
}
