//! What a caller gets for wrong files, settings and data: the variant, and a text that tells every cause once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use midspan::codec::EncoderConfig;
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::wire::Identity;
use midspan_host::gpt;
use midspan_host::split::SplitHost;
use midspan_host::tokenizer::Tokenizer;
use midspan_testkit::errors::line;
use midspan_testkit::program::Folder;
use midspan_train::base::{Host, fresh};
use midspan_train::checkpoint::{self, Loaded};
use midspan_train::codec::entropy_model::Kind;
use midspan_train::codec::network::Precision;
use midspan_train::codec::quality::{At, Quality};
use midspan_train::codec::{Codec, Config};
use midspan_train::data::{Batch, Corpus, HeldOut, read_text};
use midspan_train::dial::Dial;
use midspan_train::fit::{Learner, Start};
use midspan_train::freeze::codec::{FloatCodec, Sequence};
use midspan_train::freeze::compare::compare;
use midspan_train::freeze::freeze;
use midspan_train::measure::frozen::FrozenLink;
use midspan_train::measure::{Link, last_word};
use midspan_train::optim::Settings;
use midspan_train::rng::Rng;
use midspan_train::runner::{Metrics, Objective, Plan, Trainer};
use midspan_train::trade::Trade;
use midspan_train::{Error, FileFault};

/// The error of a call that has to fail, with the text that a user reads.
#[track_caller]
fn refused<T>(result: Result<T, Error>) -> (Error, String) {
    let error = result.map(|_| ()).expect_err("refused");
    let line = line(&error);
    (error, line)
}

/// What is wrong with a file, and its line.
#[track_caller]
fn fault<T>(result: Result<T, Error>) -> (FileFault, Option<usize>, String) {
    match refused(result) {
        (Error::File { line: at, fault, .. }, text) => (fault, at, text),
        (error, _) => panic!("{error:?}"),
    }
}

fn host() -> gpt::Config {
    gpt::Config::default().vocab(40).width(16).layers(2).heads(2).split(1).context(16)
}

fn shape() -> Config {
    Config::default().h_widths(vec![16, 8, 4]).channels(4).g_y_widths(vec![4, 8, 16]).heads(2).window(16)
}

/// New weights of a codec.
fn weights(shape: &Config) -> BTreeMap<String, Tensor> {
    shape.init(&[0.0; 16], &[1.0; 16], &mut Rng::new(3)).unwrap()
}

fn variables(shape: &Config) -> BTreeMap<String, Var> {
    weights(shape).into_iter().map(|(name, t)| (name, Var::from_tensor(&t).unwrap())).collect()
}

fn float() -> FloatCodec {
    FloatCodec::from_weights(&weights(&shape()), &shape(), 96, Precision::AsFrozen).unwrap()
}

/// Hidden states of 12 frames that vary.
fn states() -> Sequence {
    let mut rng = Rng::new(4);
    Sequence { hidden: (0..12 * 16).map(|_| rng.normal()).collect(), ids: Vec::new() }
}

fn plan(out: PathBuf) -> Plan {
    Plan::new(out, 2, 8).rows(2).micro(2).threads(1)
}

#[test]
fn checkpoints_that_cannot_be_read_are_named_once() {
    let folder = Folder::new();
    let missing = PathBuf::from(folder.path("missing"));
    let (error, line) = refused(checkpoint::load(&missing));
    let Error::Io { path, source } = &error else { panic!("{error:?}") };
    assert!(*path == missing && source.kind() == std::io::ErrorKind::NotFound, "{error:?}");
    assert_eq!(line, format!("{}: {source}", missing.display()));
    let garbage = folder.file("garbage", b"none");
    let (wrong, _, line) = fault(checkpoint::load(Path::new(&garbage)));
    assert!(matches!(wrong, FileFault::NoCheckpoint(_)), "{wrong:?}");
    assert!(line.starts_with(&format!("{garbage}: no checkpoint: ")), "{line}");
    // The library's text contains its cause.
    let odd = folder.file("odd", &[&1_u64.to_le_bytes()[..], b"{"].concat());
    let (_, _, line) = fault(checkpoint::load(Path::new(&odd)));
    assert_eq!(line.matches("EOF while parsing").count(), 1, "{line}");
    let doubles = BTreeMap::from([("a".to_string(), Tensor::zeros(2, DType::F64, &Device::Cpu).unwrap())]);
    let (wrong, ..) = fault(checkpoint::save(&missing, &doubles, &BTreeMap::new()));
    assert!(matches!(wrong, FileFault::OtherType { name, found: DType::F64 } if name == "a"));
    assert!(!missing.exists());
}

#[test]
fn checkpoints_of_other_runs_are_told_apart() {
    let folder = Folder::new();
    let vars = fresh(&host(), &mut Rng::new(5)).unwrap();
    let trainer = || Trainer::new(plan(folder.path("run").into()), vars.clone(), Settings::default(), BTreeMap::new());
    trainer().save("a.safetensors").unwrap();
    let own = checkpoint::load(Path::new(&folder.path("run/a.safetensors"))).unwrap();
    trainer().resume(&own).unwrap();
    let resumed = |change: fn(&mut Loaded)| {
        let mut other = own.clone();
        change(&mut other);
        refused(trainer().resume(&other))
    };
    let (error, line) = resumed(|(tensors, _)| drop(tensors.remove("host.final_norm.gain")));
    assert!(matches!(error, Error::Lacks { part, .. } if part == "host.final_norm.gain"), "{line}");
    assert_eq!(line, "the checkpoint lacks host.final_norm.gain");
    let (error, line) = resumed(|(tensors, _)| {
        tensors.insert("host.more".into(), tensors["host.final_norm.gain"].clone());
    });
    assert!(matches!(error, Error::Foreign { name } if name == "host.more"), "{line}");
    let (error, line) = resumed(|(tensors, _)| tensors.retain(|name, _| !name.starts_with("optimizer.")));
    assert!(matches!(error, Error::Lacks { .. }) && line.contains("the optimiser's state of host."), "{line}");
    let (error, line) = resumed(|(_, meta)| drop(meta.remove("tokens")));
    assert!(matches!(error, Error::Lacks { part, .. } if part == "tokens"), "{line}");
    let (error, line) = resumed(|(_, meta)| drop(meta.insert("step".into(), "many".into())));
    let Error::Field { key, source } = &error else { panic!("{error:?}") };
    assert!(key == "step" && source.is::<std::num::ParseIntError>(), "{error:?}");
    assert_eq!(line, "the checkpoint's step: invalid digit found in string");
    let (error, _) = resumed(|(_, meta)| drop(meta.insert("log".into(), "{".into())));
    assert!(matches!(&error, Error::Field { source, .. } if source.is::<serde_json::Error>()), "{error:?}");

    let meta = |value: &str| BTreeMap::from([("lambda".to_string(), value.to_string())]);
    let (error, line) = refused(checkpoint::check_same("the result", &meta("1"), &meta("2"), ["lambda"]));
    assert_eq!(line, "the result has another lambda: 1, asked for: 2");
    let Error::Differs { found, wanted, .. } = error else { panic!("{error:?}") };
    assert_eq!((found.as_deref(), wanted.as_deref()), (Some("1"), Some("2")));
    let (_, line) = refused(checkpoint::check_same("the result", &BTreeMap::new(), &meta("2"), ["lambda"]));
    assert_eq!(line, "the result has another lambda: none, asked for: 2");
    // Of records of many fields those that differ are told.
    let of = |one: &str, other: &str| {
        let record = |fields: &str| meta(&format!("Settings {{ muon: false, {fields}, clip: 1.0 }}"));
        refused(checkpoint::check_same("the result", &record(one), &record(other), ["lambda"])).1
    };
    let line = of("rate: 0.5, decay: 0.1", "rate: 0.05, decay: 0.1");
    assert_eq!(line, "the result has another lambda: rate: 0.5, asked for: rate: 0.05");
    let line = of("rate: 0.5, decay: 0.1", "rate: 0.05, decay: 0.2");
    assert_eq!(line, "the result has another lambda: rate: 0.5, decay: 0.1, asked for: rate: 0.05, decay: 0.2");
}

#[test]
fn texts_and_tokens_say_what_is_wrong_with_them() {
    let folder = Folder::new();
    let encode = |text: &str| Ok(text.bytes().map(u32::from).collect());
    let file = |bytes: &[u8]| PathBuf::from(folder.file("text.txt", bytes));
    let (wrong, at, line) = fault(read_text(&file(b"")));
    assert!(matches!(wrong, FileFault::NoText) && at.is_none() && line.ends_with("text.txt: no text"), "{line}");
    let (error, line) = refused(read_text(&file(&[0xFF])));
    assert!(matches!(error, Error::Io { .. }) && line.contains("text.txt: ") && line.contains("UTF-8"), "{line}");
    let (wrong, _, line) = fault(HeldOut::load(&file(b"a"), 100, encode));
    assert!(matches!(wrong, FileFault::LittleText) && line.ends_with("text.txt: too little text"), "{line}");
    assert!(matches!(fault(Corpus::read(&file(&[1, 0, 2]))).0, FileFault::HalfToken));
    let large = Corpus::from_ids(vec![7, 65_536]);
    let (wrong, _, line) = fault(large.write(&file(b"")));
    assert!(matches!(wrong, FileFault::LargeToken(65_536)) && line.contains("65536"), "{line}");
    let (error, line) = refused(large.batch(1, 9, &mut Rng::new(1)));
    assert!(matches!(error, Error::ShortCorpus { found: 2, wanted: 10 }), "{error:?}");
    assert_eq!(line, "the corpus has 2 tokens, a window 10");

    // A cache whose tokens this tokenizer does not have.
    let text = file("It was the best of times. ".repeat(9).as_bytes());
    let tokenizer = Tokenizer::train(std::iter::once("some text"), 280).unwrap();
    let cache = PathBuf::from(folder.path("cache"));
    Corpus::load(&text, &tokenizer, Some(&cache)).unwrap();
    let name = folder.names().into_iter().find(|name| name.starts_with("cache.")).unwrap();
    std::fs::write(folder.path(&name), [0xFF; 4]).unwrap();
    let (wrong, _, line) = fault(Corpus::load(&text, &tokenizer, Some(&cache)));
    assert!(matches!(wrong, FileFault::OfAnother("tokenizer")) && line.contains(&name), "{line}");
}

#[test]
fn passages_are_named_by_their_line() {
    let folder = Folder::new();
    let tokenizer = Tokenizer::train(std::iter::once("some text"), 280).unwrap();
    let load = |bytes: &[u8]| {
        let path = folder.file("passages.jsonl", bytes);
        fault(last_word::load(Path::new(&path), &tokenizer))
    };
    let good = r#"{"text": "two words"}"#;
    let (wrong, at, line) = load(format!("{good}\n\n{{").as_bytes());
    assert!(matches!(wrong, FileFault::NotJson(_)) && at == Some(3), "{wrong:?}");
    assert!(line.contains("passages.jsonl, line 3: EOF while parsing"), "{line}");
    let (wrong, at, line) = load(format!("{good}\n{{\"text\": \"one\"}}").as_bytes());
    assert!(matches!(wrong, FileFault::OneWord) && at == Some(2), "{wrong:?}");
    assert!(line.ends_with("passages.jsonl, line 2: fewer than two words"), "{line}");
    assert!(matches!(load(b"{\"text\": \" one\"}").0, FileFault::NoContext));
    assert!(matches!(load(b"\n").0, FileFault::NoPassages));
    let (wrong, _, line) = load(&[0xFF]);
    assert!(matches!(wrong, FileFault::NotUtf8(_)), "{wrong:?}");
    assert!(line.contains("passages.jsonl: not UTF-8: invalid utf-8 sequence"), "{line}");
}

#[test]
fn settings_are_named_with_their_value_and_what_is_wanted() {
    let (error, line) = refused(Trade { lambda: -0.5, ramp: 1 }.check());
    assert!(matches!(error, Error::Setting { name: "lambda", .. }), "{error:?}");
    assert_eq!(line, "lambda must be 0 or more, not -0.5");
    let odd = shape().g_y_widths(vec![8, 16]);
    let (error, line) = refused(Codec::new(&odd, Precision::Float, &variables(&shape())));
    assert!(matches!(error, Error::Setting { name: "g_y's first width", .. }), "{error:?}");
    assert_eq!(line, "g_y's first width must be the channels of W, 4, not 8");
    let codec = || Codec::new(&shape(), Precision::Float, &variables(&shape())).unwrap();
    let own = || Host::new(&host(), &fresh(&host(), &mut Rng::new(5)).unwrap()).unwrap();
    let (error, line) = refused(Dial::new(own(), codec(), &[1, 2]));
    assert!(matches!(error, Error::Setting { name: "shares", .. }), "{error:?}");
    assert!(line.starts_with("shares must be one for each of 1 qualities, ") && line.ends_with(", not [1, 2]"));
    // The host's errors come through unchanged.
    let (error, line) = refused(Host::new(&host().heads(3), &BTreeMap::new()));
    let Error::Host(midspan_host::Error::Setting { name: "the width", .. }) = error else { panic!("{error:?}") };
    assert_eq!(line, "the width must be a multiple of twice the heads, 6, not 16");
}

#[test]
fn qualities_and_models_that_cannot_be_priced() {
    let hidden = Tensor::zeros((1, 4, 16), DType::F32, &Device::Cpu).unwrap();
    let codec = Codec::new(&shape(), Precision::Float, &variables(&shape())).unwrap();
    let (error, line) = refused(codec.forward_in(&hidden, &[], 5));
    assert!(matches!(error, Error::NoQuality { index: 5, qualities: 1 }), "{error:?}");
    assert_eq!(line, "no quality 5: the codec has 1");
    let plain = shape().entropy_model(Kind::Factorised);
    let codec = Codec::new(&plain, Precision::Float, &variables(&plain)).unwrap().with_rate_weight(0.1);
    let (error, line) = refused(codec.forward(&hidden, &[]));
    assert!(matches!(error, Error::NearestAlone { model: "static tables" }) && line.contains("rate weight"), "{line}");
    let (error, line) = refused(Codec::new(&shape(), Precision::Float, &BTreeMap::new()));
    assert!(matches!(error, Error::Tensor(_)) && line.contains("cannot find tensor"), "{line}");
}

#[test]
fn numbers_of_the_specification_are_kept() {
    let model = synthetic::model(&SyntheticShape::tiny(), 5);
    let width = model.hidden_width();
    let codec = Arc::new(midspan::codec::Codec::new(model).unwrap());
    let link = FrozenLink::new(codec, &EncoderConfig::new(Identity::none())).unwrap();
    let hidden = Tensor::full(f32::NAN, (1, 4, width), &Device::Cpu).unwrap();
    let (error, line) = refused(link.carry(&hidden, &[]));
    assert_eq!((error.code(), error.codec_error().map(midspan::error::Error::code)), (Some(801), Some(801)));
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<midspan::error::Error>());
    assert_eq!(source.map(midspan::error::Error::code), Some(801));
    assert_eq!(line.matches("error 801").count(), 1, "{line}");

    // A step that no model file may hold.
    let mut float = float();
    float.step[3] = -1.0;
    let quality = Quality { steps: 1.0, rate_weight: 0.0 };
    let (error, line) = refused(freeze(&float, &[quality], &[states()], &[], 1));
    let Error::Model(invalid) = &error else { panic!("{error:?}") };
    assert_eq!((error.code(), error.codec_error().is_none()), (Some(invalid.kind.code()), true));
    assert!(line.starts_with("the frozen model breaks the rule of error 7") && line.contains("step"), "{line}");
}

#[test]
fn what_cannot_be_frozen() {
    let quality = |steps: f64| Quality { steps, rate_weight: 0.0 };
    let frozen = |steps: f64| freeze(&float(), &[quality(steps)], &[states()], &[], 1);
    let (error, line) = refused(frozen(1e-6));
    assert!(matches!(error, Error::TooFine { most: 256, found: 257.., .. }), "{error:?}");
    assert!(line.starts_with("steps that much finer need ") && line.ends_with(" scales, more than 256"), "{line}");
    let model: CodecModel = frozen(1.0).unwrap().without_encoder();
    let codec = midspan::codec::Codec::new(model).unwrap();
    let at = At { index: 0, quality: quality(1.0) };
    assert!(matches!(refused(compare(&float(), None, &codec, at, &[states()])).0, Error::NoH));

    let from = |tensors: BTreeMap<String, Tensor>, shape: Config| {
        refused(FloatCodec::from_weights(&tensors, &shape, 96, Precision::AsFrozen))
    };
    let (error, line) = from(weights(&shape()), shape().window(8));
    assert!(matches!(error, Error::Size { found, wanted, .. } if found == [2, 16] && wanted == [2, 8]), "{line}");
    assert_eq!(line, "h.blocks.0.bias is [2, 16] in the checkpoint, [2, 8] in this architecture");
    let mut fewer = weights(&shape());
    fewer.remove("quantiser.offset");
    let (error, line) = from(fewer, shape());
    assert!(matches!(error, Error::Lacks { part, .. } if part == "quantiser.offset"), "{line}");
    let mut lacking = weights(&shape());
    lacking.remove("h.input_gain");
    assert!(matches!(from(lacking, shape()).0, Error::Lacks { part, .. } if part == "h.input_gain"));
}

/// A host whose hidden states or whose predictions are always the same.
struct Dull {
    varies: bool,
    matters: bool,
}

impl SplitHost for Dull {
    fn width(&self) -> usize {
        16
    }

    fn context(&self) -> usize {
        16
    }

    fn vocab(&self) -> usize {
        16
    }

    fn head(&self, tokens: &Tensor) -> candle_core::Result<Tensor> {
        let ids = tokens.to_dtype(DType::F32)?.unsqueeze(2)?; // [batch, T, 1]
        let row = Tensor::arange(1.0_f32, 17.0, &Device::Cpu)?.reshape((1, 1, 16))?;
        if self.varies { (ids.broadcast_mul(&row)? * 0.1)?.sin() } else { ids.zeros_like()?.broadcast_add(&row) }
    }

    fn tail(&self, hidden: &Tensor, last: usize) -> candle_core::Result<Tensor> {
        let hidden = hidden.narrow(1, hidden.dim(1)? - last, last)?.contiguous()?;
        if self.matters { hidden.tanh() } else { hidden.detach().zeros_like() }
    }
}

#[test]
fn hosts_that_no_map_suits() {
    let corpus = Corpus::from_ids((0..400_u32).map(|i| i * i / 7 % 16).collect());
    let held_out = HeldOut { ids: (0..60).map(|i| i % 16).collect(), bytes: 60 };
    let learn = |host: Dull| {
        let folder = Folder::new();
        let learner = Learner {
            host: &host,
            identity: "dull".into(),
            shape: shape().maps(true),
            start: Start::New,
            map: None,
            rate_weight: 0.0,
            trade: Trade { lambda: 1e-4, ramp: 1 },
            settings: Settings::default(),
            plan: plan(folder.path("run").into()),
        };
        refused(learner.learn(&corpus, &held_out, &()).map(drop))
    };
    let (error, _) = learn(Dull { varies: false, matters: true });
    assert!(matches!(error, Error::NoMap), "{error:?}");
    let (error, line) = learn(Dull { varies: true, matters: false });
    assert!(matches!(error, Error::Independent { output: "predictions", input: "the hidden state" }), "{error:?}");
    assert_eq!(line, "predictions do not depend on the hidden state");
}

/// An objective that panics.
struct Panics;

impl Objective for Panics {
    fn loss(&self, _: &Batch, _: u64) -> Result<(Tensor, Metrics), Error> {
        panic!("on purpose");
    }

    fn evaluate(&self, _: &HeldOut, _: usize) -> Result<Metrics, Error> {
        Ok(Metrics::new())
    }
}

#[test]
fn batches_without_gradients() {
    let folder = Folder::new();
    let vars = fresh(&host(), &mut Rng::new(5)).unwrap();
    let trainer = Trainer::new(plan(folder.path("run").into()), vars, Settings::default(), BTreeMap::new());
    let empty = Batch { ids: Vec::new(), rows: 0, len: 8 };
    assert!(matches!(refused(trainer.gradients(&Panics, &empty)).0, Error::EmptyBatch));
    let one = Batch { ids: vec![1; 9], rows: 1, len: 8 };
    assert!(matches!(refused(trainer.gradients(&Panics, &one)).0, Error::Panicked));
}
