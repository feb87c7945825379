//! The options of a training run on the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use candle_core::Var;
use clap::Args;

use midspan_host::gpt::Config;
use midspan_host::ops::gemm::Reduced;
use midspan_host::tokenizer::Tokenizer;
use midspan_train::Error;
use midspan_train::codec::entropy_model::Kind;
use midspan_train::codec::quality::{self, Quality};
use midspan_train::codec::quantiser::Steps;
use midspan_train::codec::side::{self, Dropout};
use midspan_train::codec::{self, Codec};
use midspan_train::data::{Corpus, HeldOut};
use midspan_train::optim::Settings;
use midspan_train::recipes::{self, Dial, Joint};
use midspan_train::runner::Plan;
use midspan_train::schedule::Schedule;
use midspan_train::trade::Trade;

/// The shape of a new host; a checkpoint contains its own.
#[derive(Clone, Debug, Args)]
pub struct HostArgs {
    /// Width of the hidden state.
    #[arg(long, default_value_t = Config::default().width)]
    pub width: usize,
    /// Blocks.
    #[arg(long, default_value_t = Config::default().layers)]
    pub layers: usize,
    /// Attention heads in a block.
    #[arg(long, default_value_t = Config::default().heads)]
    pub heads: usize,
    /// Blocks before the split.
    #[arg(long, default_value_t = Config::default().split)]
    pub split: usize,
    /// Number of tokens that attention looks back over.
    #[arg(long, default_value_t = Config::default().context)]
    pub context: usize,
}

impl HostArgs {
    /// The host's shape.
    ///
    /// # Errors
    /// One line if no host can have this shape.
    pub fn shape(&self, vocab: usize) -> Result<Config> {
        let &Self { width, layers, heads, split, context } = self;
        let config =
            Config::default().vocab(vocab).width(width).layers(layers).heads(heads).split(split).context(context);
        config.check()?;
        if split == 0 || split == layers {
            return Err(midspan_host::Error::Split { split, blocks: layers }.into());
        }
        Ok(config)
    }
}

/// Sums of side indices, if nobody says how many.
const SIDE_WIDTH: usize = 48;
/// Frames whose tokens add up to them, if nobody says how many.
pub const SIDE_AGES: usize = 3;

/// The codec's part of a joint run.
#[derive(Clone, Debug, Args)]
pub struct CodecArgs {
    /// Weight of one bit when the encoder chooses Y, in squared quantiser steps of error; 0 takes the nearest integers.
    #[arg(long, default_value_t = 0.08)]
    pub rate_weight: f64,
    /// How hidden states become integers.
    #[arg(long, value_enum, default_value = "channels")]
    pub quantiser: Steps,
    /// Training steps over which lambda rises from 0.
    #[arg(long, default_value_t = 300)]
    pub ramp: u64,
    /// Factor of the learning rate of the codec's variables.
    #[arg(long, default_value_t = 1.0)]
    pub codec_rate: f32,
    /// Factor of the learning rate of the quantiser's steps and offsets. Default: the codec's factor.
    #[arg(long)]
    pub quantiser_rate: Option<f32>,
    /// Leave the quantiser's steps and offsets as they are.
    #[arg(long)]
    pub freeze_quantiser: bool,
    /// Compute h and g_y in float, not as they will be frozen, as a reference to measure the cost of freezing.
    #[arg(long)]
    pub float: bool,
    /// Learn a linear map on each side of the quantiser.
    #[arg(long)]
    pub maps: bool,
    /// Side indices: the tokens of so many frames, each frame's own included, tell g_y what to expect; 0 for none. Both
    /// ends then have to know the tokens. Default: none, or 3 with --side-width and for a fit that begins with a
    /// calibration.
    #[arg(long)]
    pub side_ages: Option<usize>,
    /// How many sums of side indices g_y takes after W. Default: 48; for a fit that begins with a calibration a few more
    /// than hidden states have values, about 96 at most.
    #[arg(long)]
    pub side_width: Option<usize>,
    /// Attention heads in each block of h and g_y, which share the block's width.
    #[arg(long, default_value_t = codec::Config::default().heads)]
    pub codec_heads: usize,
    /// Widths of h, from the host's to its last block's. The host's alone makes h a linear map.
    #[arg(long, alias = "analysis", value_name = "N,…", value_delimiter = ',', default_value = "192,96,48,32,16")]
    pub h_widths: Vec<usize>,
    /// Widths of g_y, from the channels of W to its last block's.
    #[arg(long, alias = "synthesis", value_name = "N,…", value_delimiter = ',', default_value = "16,32,48,96,192")]
    pub g_y_widths: Vec<usize>,
}

impl CodecArgs {
    /// The codec with this shape and these variables, computing as the arguments say.
    ///
    /// # Errors
    /// One line if the rate weight is invalid or a variable is missing.
    pub fn codec(&self, shape: &codec::Config, vars: &BTreeMap<String, Var>) -> Result<Codec> {
        Ok(recipes::codec(shape, vars, self.float, self.rate_weight)?)
    }

    /// The recipe of a joint run.
    pub fn joint(&self, variant: Variant) -> Joint {
        let Variant { entropy_model, lambda, split, freeze_host } = variant;
        Joint {
            codec: self.config(entropy_model),
            trade: self.trade(lambda),
            rate_weight: self.rate_weight,
            float: self.float,
            split,
            freeze_host,
            factors: self.factors(),
            shares: Vec::new(),
        }
    }

    /// The price of a bit in a run with this λ.
    pub fn trade(&self, lambda: f64) -> Trade {
        Trade { lambda, ramp: self.ramp }
    }

    /// Factors of the learning rate of the codec's variables, by prefix of their names.
    pub fn factors(&self) -> Vec<(String, f32)> {
        let fixed = self.freeze_quantiser || self.quantiser == Steps::One;
        let quantiser = if fixed { 0.0 } else { self.quantiser_rate.unwrap_or(self.codec_rate) };
        vec![
            ("quantiser.log_step".into(), quantiser),
            ("quantiser.offset".into(), quantiser),
            (String::new(), self.codec_rate),
        ]
    }

    /// The codec's shape, for a host that is not known yet.
    pub fn config(&self, entropy_model: Kind) -> codec::Config {
        codec::Config::default()
            .channels(self.g_y_widths[0])
            .heads(self.codec_heads)
            .h_widths(self.h_widths.clone())
            .g_y_widths(self.g_y_widths.clone())
            .entropy_model(entropy_model)
            .steps(self.quantiser)
            .maps(self.maps)
            .side(self.side())
    }

    /// What g_y takes of side indices, for a vocabulary that is not known yet.
    fn side(&self) -> Option<side::Shape> {
        let ages = self.side_ages.unwrap_or(if self.side_width.is_some() { SIDE_AGES } else { 0 });
        let width = self.side_width.unwrap_or(SIDE_WIDTH);
        (ages > 0).then_some(side::Shape { ages, vocabulary: 1, width })
    }
}

/// The qualities of a dial.
#[derive(Clone, Debug, Args)]
pub struct DialArgs {
    /// Qualities: factors of the quantiser's steps. The first is quality 0. Default: those of the checkpoint. Where the
    /// checkpoint has qualities, as many as it has get new factors and rate weights.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub quality: Vec<f64>,
    /// Weight of one bit when the encoder chooses Y, in squared steps of error, for every quality; 0 takes the nearest
    /// integers.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub rate_weight: Vec<f64>,
    /// How often each quality is drawn, relative to the sum of all shares. Default: equally often.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub share: Vec<u64>,
    /// Widths of g_y if they are to be narrower than the checkpoint's; the channels with the largest weights are kept.
    #[arg(long, alias = "synthesis", value_name = "N,…", value_delimiter = ',')]
    pub g_y_widths: Option<Vec<usize>>,
    /// Side indices, for a codec that takes none: the tokens of so many frames, each frame's own included, tell g_y what
    /// to expect. Both ends then have to know the tokens. 0 leaves the codec as it is.
    #[arg(long)]
    pub side_ages: Option<usize>,
    /// How many sums of side indices g_y then takes after W.
    #[arg(long, default_value_t = SIDE_WIDTH, requires = "side_ages")]
    pub side_width: usize,
    /// Share of windows whose side indices are left out, so that the codec also learns to do without tokens: 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub side_dropout: f64,
    /// Compute h and g_y in float, not as they will be frozen, as a reference to measure the cost of freezing.
    #[arg(long)]
    pub float: bool,
}

impl DialArgs {
    /// The recipe of the run.
    ///
    /// # Errors
    /// One line if there is not one rate weight for each quality.
    pub fn dial(&self) -> Result<Dial> {
        if self.rate_weight.len() != self.quality.len() {
            let (weights, qualities) = (self.rate_weight.len(), self.quality.len());
            bail!("{weights} rate weights for {qualities} qualities");
        }
        let asked = self.quality.iter().zip(&self.rate_weight);
        Ok(Dial {
            qualities: asked.map(|(steps, weight)| Quality { steps: *steps, rate_weight: *weight }).collect(),
            shares: self.share.clone(),
            g_y_widths: self.g_y_widths.clone(),
            side: self.side_ages.filter(|ages| *ages > 0).map(|ages| side::Shape {
                ages,
                vocabulary: 1,
                width: self.side_width,
            }),
            dropout: Dropout::new(self.side_dropout).map_err(with_option)?,
            float: self.float,
        })
    }
}

/// The qualities of a joint run.
#[derive(Clone, Debug, Default, Args)]
pub struct QualityArgs {
    /// Train host and codec in several qualities: factors of the quantiser's steps. The first is quality 0.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub quality: Vec<f64>,
    /// Weight of one bit when the encoder chooses Y, in squared steps of error, for every quality. Default: --rate-weight
    /// for all.
    #[arg(long, value_name = "N,…", value_delimiter = ',', requires = "quality")]
    pub quality_weight: Vec<f64>,
    /// How often each quality is drawn, relative to the sum of all shares. Default: equally often.
    #[arg(long, value_name = "N,…", value_delimiter = ',', requires = "quality")]
    pub share: Vec<u64>,
}

impl QualityArgs {
    /// Adds the qualities to a joint run.
    ///
    /// # Errors
    /// One line if there is not one rate weight for each quality.
    pub fn add_to(&self, joint: Joint) -> Result<Joint> {
        let mut weights = self.quality_weight.clone();
        if weights.is_empty() {
            weights = vec![joint.rate_weight; self.quality.len()];
        }
        if weights.len() != self.quality.len() {
            bail!("--quality-weight: {} values for {} of --quality", weights.len(), self.quality.len());
        }
        let qualities = self.quality.iter().zip(&weights);
        let qualities = qualities.map(|(steps, weight)| Quality { steps: *steps, rate_weight: *weight }).collect();
        Ok(Joint { codec: joint.codec.qualities(qualities), shares: self.share.clone(), ..joint })
    }
}

/// What distinguishes joint runs with the same data and budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant {
    /// The entropy model.
    pub entropy_model: Kind,
    /// Lambda, the weight of the rate in the loss: nats a bit.
    pub lambda: f64,
    /// Blocks before the split. Default: as in the host's checkpoint.
    pub split: Option<usize>,
    /// Do not train the host.
    pub freeze_host: bool,
}

/// The folder of a run's files, and its seed.
#[derive(Clone, Debug, Args)]
pub struct FolderArgs {
    /// Folder of checkpoint and log; an unfinished run there is resumed.
    #[arg(long)]
    pub out: PathBuf,
    /// Seed of weights and windows.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Held-out text.
#[derive(Clone, Debug, Args)]
pub struct TextArgs {
    /// Held-out text.
    #[arg(long)]
    pub valid: PathBuf,
    /// Bytes of held-out text that an evaluation reads.
    #[arg(long, default_value_t = 1 << 18)]
    pub valid_bytes: usize,
    /// Tokenizer file.
    #[arg(long)]
    pub tokenizer: PathBuf,
}

impl TextArgs {
    /// The tokenizer.
    ///
    /// # Errors
    /// The file is not a tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(Tokenizer::load(&self.tokenizer)?)
    }

    /// The text's tokens.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self, t: &Tokenizer) -> Result<HeldOut> {
        self.load_bytes(t, self.valid_bytes)
    }

    /// The tokens of at most `bytes` bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load_bytes(&self, t: &Tokenizer, bytes: usize) -> Result<HeldOut> {
        Ok(HeldOut::load(&self.valid, bytes, |text| Ok(t.encode_long(text, 2)?))?)
    }
}

/// A run's data, start and pace.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Training text.
    #[arg(long)]
    pub text: PathBuf,
    #[command(flatten)]
    pub texts: TextArgs,
    /// Keep the tokenised text in a file. Its name is this one and a suffix that identifies text and tokenizer.
    #[arg(long)]
    pub cache: Option<PathBuf>,
    /// Checkpoint whose weights a new run begins with.
    #[arg(long)]
    pub from: Option<PathBuf>,
    /// Also begin with that checkpoint's optimiser state.
    #[arg(long)]
    pub keep_state: bool,
    #[command(flatten)]
    pub pace: PaceArgs,
}

/// The most windows of a step.
const ROWS_MAX: usize = 1 << 16;
/// The most windows of a pass.
const MICRO_MAX: usize = 1 << 10;
/// The largest tensor of all threads' passes, bytes. A step holds some dozens of them.
const TENSOR_MAX: usize = 1 << 30;

/// A number from 1 to `MOST`.
fn up_to<const MOST: usize>(text: &str) -> Result<usize> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.with_context(|| format!("not a number from 1 to {MOST}"))
}

/// A run's length, its rates and its use of the CPU.
#[derive(Clone, Debug, Args)]
pub struct PaceArgs {
    /// Steps of the run.
    #[arg(long, default_value_t = 100_000)]
    pub steps: u64,
    /// Steps of learning-rate decay at the end.
    #[arg(long, default_value_t = 0)]
    pub decay: u64,
    /// Steps of learning-rate warm-up.
    #[arg(long, default_value_t = 150)]
    pub warmup: u64,
    /// Windows in a step, 1 to 65,536.
    #[arg(long, default_value_t = 32, value_parser = up_to::<ROWS_MAX>)]
    pub rows: usize,
    /// Windows in a pass of a thread, 1 to 1,024, and no more than one tensor of all threads' passes takes 1 GiB for: 4
    /// bytes for each window, position, and channel of the hidden state or entry of the vocabulary.
    #[arg(long, default_value_t = 4, value_parser = up_to::<MICRO_MAX>)]
    pub micro: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Muon for the matrices of blocks, or AdamW for everything. Default: muon; adamw for a fit that begins with a
    /// calibration, which takes no other.
    #[arg(long, value_parser = ["muon", "adamw"])]
    pub optimizer: Option<String>,
    /// Muon's learning rate; refused where AdamW learns everything. Default: 0.02.
    #[arg(long)]
    pub muon_lr: Option<f32>,
    /// AdamW's learning rate.
    #[arg(long, default_value_t = 3e-3)]
    pub adam_lr: f32,
    /// Decoupled weight decay of matrices.
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f32,
    /// Steps between evaluations.
    #[arg(long, default_value_t = 250)]
    pub eval_every: u64,
    /// Steps between log lines.
    #[arg(long, default_value_t = 25)]
    pub log_every: u64,
    /// Seconds between checkpoints.
    #[arg(long, default_value_t = 300)]
    pub save_seconds: u64,
    /// Compute products in f32 even if the CPU has a tile unit for bfloat16. Results made with bfloat16 then count as
    /// made with other options.
    #[arg(long)]
    pub f32: bool,
}

impl PaceArgs {
    /// The plan of a run over windows of `len` positions.
    pub fn plan(&self, folder: &FolderArgs, len: usize) -> Plan {
        Plan::new(folder.out.clone(), self.steps, len)
            .schedule(Schedule { warmup: self.warmup, start: 0, total: self.steps, decay: self.decay })
            .rows(self.rows)
            .micro(self.micro)
            .threads(self.threads)
            .eval_every(self.eval_every)
            .log_every(self.log_every)
            .save_every(Duration::from_secs(self.save_seconds))
            .seed(folder.seed)
            .bfloat16(self.bfloat16())
    }

    /// Refuses passes over windows of `len` positions that take too much memory. `values` is the largest number of values
    /// that a tensor has for each position.
    ///
    /// # Errors
    /// One line that names the option and what it may be.
    pub fn check_passes(&self, len: usize, values: usize) -> Result<()> {
        let threads = self.threads.clamp(1, self.rows);
        let windows = self.micro.min(self.rows.div_ceil(threads));
        let bytes = [windows, len, values, 4].iter().fold(threads, |bytes, size| bytes.saturating_mul(*size));
        if bytes > TENSOR_MAX {
            let gib = bytes as f64 / TENSOR_MAX as f64;
            let what = format!("{len} positions of {values} values in {threads} threads");
            match TENSOR_MAX / (bytes / windows).max(1) {
                0 => bail!("windows of {what} take {gib:.1} GiB a tensor, more than 1: take fewer --threads"),
                most => bail!("--micro: {windows} windows of {what} take {gib:.1} GiB a tensor: at most {most}"),
            }
        }
        Ok(())
    }

    /// Whether training multiplies in bfloat16.
    pub fn bfloat16(&self) -> bool {
        !self.f32 && Reduced::is_available()
    }

    /// Whether an option of an existing result has to equal this command's. bfloat16 depends on the CPU and not on the
    /// command, so results with and without it may be mixed, unless the command asks for f32.
    pub fn is_asked(&self, option: &str) -> bool {
        option != "bfloat16" || self.f32
    }

    /// The optimiser's settings.
    ///
    /// # Errors
    /// One line if a rate is negative or not finite, or Muon has a learning rate and does not run.
    pub fn settings(&self) -> Result<Settings> {
        let muon = self.optimizer.as_deref() != Some("adamw");
        let rates = [("--adam-lr", Some(self.adam_lr)), ("--muon-lr", self.muon_lr)];
        for (option, rate) in rates.into_iter().chain([("--weight-decay", Some(self.weight_decay))]) {
            if let Some(rate) = rate.filter(|rate| !(*rate >= 0.0 && rate.is_finite())) {
                bail!("{option} must be 0 or more, not {rate}");
            }
        }
        let settings = Settings::default().muon(muon).adam_lr(self.adam_lr).weight_decay(self.weight_decay);
        match self.muon_lr {
            Some(_) if !muon => bail!("--muon-lr: --optimizer adamw does not use Muon"),
            Some(rate) => Ok(settings.muon_lr(rate)),
            None => Ok(settings),
        }
    }
}

impl RunArgs {
    /// Training and held-out text.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn data(&self, t: &Tokenizer) -> Result<(Corpus, HeldOut)> {
        let corpus = Corpus::load(&self.text, t, self.cache.as_deref())?;
        Ok((corpus, self.texts.load(t)?))
    }
}

/// The error, with the option that would help.
pub fn with_option(error: Error) -> anyhow::Error {
    let option = match &error {
        Error::NoStart(_) => "--from is missing",
        Error::Qualities { checkpoint: 0, .. } => "give --quality and --rate-weight",
        Error::Setting { name: quality::RATE_WEIGHT, .. } => "--rate-weight",
        Error::Setting { name: side::DROPOUT, .. } => "--side-dropout",
        Error::Differs { key, .. } => match key.as_str() {
            "windows" => "--rows, or the length of the windows",
            "schedule" => "--steps, --warmup or --decay",
            "optimizer" => "--optimizer, --adam-lr, --weight-decay or a factor of the rate",
            "held_out" => "--valid or --valid-bytes",
            "text" => "the text or the captured files",
            _ => return error.into(),
        },
        Error::Setting { name: quality::FACTOR | quality::COUNT, .. } => "--quality",
        _ => return error.into(),
    };
    anyhow::Error::new(error).context(option)
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    #[test]
    fn widths_have_their_old_options_too() {
        for [h, g_y] in [["--h-widths", "--g-y-widths"], ["--analysis", "--synthesis"]] {
            let line = ["run", h, "32,16", g_y, "16,32"];
            let codec = CodecArgs::augment_args(Command::new("run")).get_matches_from(line);
            let codec = CodecArgs::from_arg_matches(&codec).unwrap();
            assert_eq!([codec.h_widths, codec.g_y_widths], [[32, 16], [16, 32]]);
            let dial = DialArgs::augment_args(Command::new("run")).get_matches_from(["run", g_y, "16,24"]);
            assert_eq!(DialArgs::from_arg_matches(&dial).unwrap().g_y_widths, Some(vec![16, 24]));
        }
    }

    #[test]
    fn a_list_has_commas_as_help_shows_it() {
        let help = CodecArgs::augment_args(Command::new("run")).render_long_help().to_string();
        assert!(help.contains("--h-widths <N,…>") && help.contains("[default: 192,96,48,32,16]"), "{help}");
        let codec = CodecArgs::augment_args(Command::new("run")).get_matches_from(["run"]);
        let (codec, default) = (CodecArgs::from_arg_matches(&codec).unwrap(), codec::Config::default());
        assert_eq!([codec.h_widths, codec.g_y_widths], [default.h_widths, default.g_y_widths]);
    }

    #[test]
    fn sums_of_side_indices_alone_ask_for_them() {
        let side = |line: &[&str]| {
            let line = [&["run"], line].concat();
            let codec = CodecArgs::augment_args(Command::new("run")).get_matches_from(line);
            CodecArgs::from_arg_matches(&codec).unwrap().side().map(|side| (side.ages, side.width))
        };
        assert_eq!(side(&[]), None);
        assert_eq!(side(&["--side-width", "8"]), Some((SIDE_AGES, 8)));
        assert_eq!(side(&["--side-ages", "1"]), Some((1, SIDE_WIDTH)));
        assert_eq!(side(&["--side-ages", "0", "--side-width", "8"]), None);
    }

    #[test]
    fn no_ages_leave_a_dial_without_side_indices() {
        let side = |ages| {
            let dial = DialArgs::augment_args(Command::new("run")).get_matches_from(["run", "--side-ages", ages]);
            DialArgs::from_arg_matches(&dial).unwrap().dial().unwrap().side.map(|side| (side.ages, side.width))
        };
        assert_eq!(side("0"), None);
        assert_eq!(side("1"), Some((1, SIDE_WIDTH)));
    }

    #[test]
    fn passes_that_memory_does_not_hold_are_refused() {
        let pace = |line: &[&str]| {
            let command = PaceArgs::augment_args(Command::new("run"));
            let matches = command.try_get_matches_from([&["run", "--threads", "2"], line].concat())?;
            PaceArgs::from_arg_matches(&matches)
        };
        for line in [["--rows", "0"], ["--rows", "65537"], ["--micro", "1025"], ["--micro", "x"]] {
            assert!(pace(&line).unwrap_err().to_string().contains("not a number from 1 to "), "{line:?}");
        }
        let most = pace(&["--rows", "65536", "--micro", "1024"]).unwrap();
        let line = most.check_passes(1_024, 1_024).unwrap_err().to_string();
        assert!(line.starts_with("--micro: 1024 windows") && line.ends_with("8.0 GiB a tensor: at most 128"));
        pace(&["--rows", "256", "--micro", "128"]).unwrap().check_passes(1_024, 1_024).unwrap();
        // A step of 2 windows has no pass of more.
        pace(&["--rows", "2", "--micro", "1024"]).unwrap().check_passes(1_024, 1_024).unwrap();
        let line = most.check_passes(1 << 20, 1 << 20).unwrap_err().to_string();
        assert!(line.contains("fewer --threads"), "{line}");
    }

    #[test]
    fn hosts_that_cannot_be_are_refused() {
        let good = HostArgs { width: 16, layers: 3, heads: 2, split: 1, context: 8 };
        assert_eq!(good.shape(300).unwrap().vocab, 300);
        let refused = |change: fn(&mut HostArgs)| {
            let mut args = good.clone();
            change(&mut args);
            args.shape(300).unwrap_err().to_string()
        };
        assert_eq!(refused(|args| args.width = 18), "the width must be a multiple of twice the heads, 4, not 18");
        assert_eq!(refused(|args| args.width = 1 << 40), "the width must be 1 to 16777216, not 1099511627776");
        assert_eq!(refused(|args| args.heads = 0), "the number of heads must be 1 to 16777216, not 0");
        assert_eq!(refused(|args| args.context = 1), "the context must be 2 to 16777216, not 1");
        assert_eq!(refused(|args| args.split = 4), "the split must be at most the number of blocks, 3, not 4");
        for split in [0, 3] {
            let args = HostArgs { split, ..good.clone() };
            let line = args.shape(300).unwrap_err().to_string();
            assert_eq!(line, format!("a model of 3 blocks cannot be split after {split}"));
        }
    }
}
