//! Whole training runs as single calls: a host, a codec with it, its qualities.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use midspan_host::gpt::Config;
use midspan_testkit::errors::line;
use midspan_testkit::program::Folder;
use midspan_train::checkpoint::{self, Loaded};
use midspan_train::codec::entropy_model::Kind;
use midspan_train::codec::network::Precision;
use midspan_train::codec::quality::Quality;
use midspan_train::codec::side::{self, Dropout};
use midspan_train::data::{Corpus, HeldOut};
use midspan_train::freeze::codec::{FloatCodec, Sequence};
use midspan_train::freeze::freeze;
use midspan_train::recipes::{Dial, Joint, Run, Trained, base, codec_of, dial, host_of, joint};
use midspan_train::runner::{LAST, Plan};
use midspan_train::watch::Watch;
use midspan_train::{Error, Result};

const VOCAB: usize = 30;

fn texts() -> (Corpus, HeldOut) {
    let ids: Vec<u32> = (0..400_u32).map(|i| i * i / 7 % VOCAB as u32).collect();
    let held_out = HeldOut { ids: ids[..60].to_vec(), bytes: 60 };
    (Corpus::from_ids(ids), held_out)
}

fn host() -> Config {
    Config::default().vocab(VOCAB).width(16).layers(3).heads(2).split(1).context(8)
}

fn recipe() -> Joint {
    let shape = Joint::default().codec.h_widths(vec![16, 8, 4]).g_y_widths(vec![4, 8, 16]).channels(4).heads(2);
    Joint { codec: shape, ..Joint::default() }
}

fn plan(out: &str, steps: u64) -> Plan {
    Plan::new(PathBuf::from(out), steps, 0).rows(2).micro(2).threads(1)
}

/// The last checkpoint of a run.
fn last(folder: &str) -> Loaded {
    checkpoint::load(&PathBuf::from(folder).join(LAST)).unwrap()
}

fn refused(result: Result<Trained>) -> (Error, String) {
    let error = result.map(|_| ()).unwrap_err();
    let line = line(&error);
    (error, line)
}

/// What a run reports when it opens.
#[derive(Default)]
struct Opened(Mutex<Vec<(usize, usize, u64)>>);

impl Watch for Opened {
    fn opened(&self, tokens: usize, parameters: usize, step: u64) {
        self.0.lock().unwrap().push((tokens, parameters, step));
    }
}

#[test]
fn a_host_then_its_codec_then_its_qualities() {
    let folder = Folder::new();
    let (corpus, held_out) = texts();
    let [to_host, to_joint, to_dial] = ["host", "joint", "dial"].map(|name| folder.path(name));
    let run = Run::new(&corpus, &held_out, VOCAB, plan(&to_host, 3));
    let opened = Opened::default();
    let trained = base(&run, &host(), &opened).unwrap();
    assert_eq!((trained.host, trained.steps, trained.tokens), (host(), 3, 3 * 2 * 8));
    // A call for more steps goes on, whatever shape it asks for: the checkpoint has one.
    let more = Run { plan: plan(&to_host, 5), ..run.clone() };
    let trained = base(&more, &host().layers(9), &opened).unwrap();
    assert_eq!((trained.host, trained.steps, trained.tokens), (host(), 5, 5 * 2 * 8));
    let parameters = trained.vars.values().map(|var| var.elem_count()).sum();
    assert_eq!(*opened.0.lock().unwrap(), [(400, parameters, 0), (400, parameters, 3)]);

    let from = last(&to_host);
    let run = Run { from: Some(&from), plan: plan(&to_joint, 3), ..run };
    let trained = joint(&run, &Joint { split: Some(2), freeze_host: true, ..recipe() }, &()).unwrap();
    assert_eq!((trained.host.split, trained.steps), (2, 3));
    assert!(trained.metrics["bits"].is_finite());
    let (tensors, meta) = last(&to_joint);
    assert_eq!((host_of(&meta).unwrap().split, codec_of(&meta).unwrap().window), (2, 8));
    for (name, tensor) in &from.0 {
        if name.starts_with("host.") {
            let before = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap(), before, "{name} is frozen");
        }
    }

    let from = last(&to_joint);
    let run = Run { from: Some(&from), plan: plan(&to_dial, 2), ..run };
    let qualities = vec![Quality { steps: 1.0, rate_weight: 0.1 }, Quality { steps: 0.5, rate_weight: 0.0 }];
    let recipe = Dial { qualities: qualities.clone(), g_y_widths: Some(vec![4, 6, 16]), ..Dial::default() };
    let trained = dial(&run, &recipe, &()).unwrap();
    assert_eq!(trained.steps, 2);
    let shape = codec_of(&last(&to_dial).1).unwrap();
    assert_eq!((shape.qualities, shape.g_y_widths), (qualities, vec![4, 6, 16]));
}

#[test]
fn a_joint_run_trains_several_qualities_with_tokens() {
    let folder = Folder::new();
    let (corpus, held_out) = texts();
    let [to_host, to_joint, to_more, to_dial] = ["host", "joint", "more", "dial"].map(|name| folder.path(name));
    let run = Run::new(&corpus, &held_out, VOCAB, plan(&to_host, 3));
    base(&run, &host(), &()).unwrap();
    let from = last(&to_host);
    let run = Run { from: Some(&from), plan: plan(&to_joint, 3), ..run };
    let side = side::Shape { ages: 2, vocabulary: 1, width: 4 };
    let one = Joint { codec: recipe().codec.side(Some(side)), ..recipe() };
    joint(&run, &one, &()).unwrap();
    let shape = codec_of(&last(&to_joint).1).unwrap();
    // The vocabulary is the host's.
    assert_eq!(shape.side, Some(side::Shape { vocabulary: VOCAB, ..side }));

    // Qualities that the checkpoint lacks begin as copies of its first.
    let from = last(&to_joint);
    let qualities = vec![Quality { steps: 1.0, rate_weight: 0.1 }, Quality { steps: 0.5, rate_weight: 0.0 }];
    let several = Joint { codec: one.codec.clone().qualities(qualities.clone()), shares: vec![3, 1], ..one };
    let run = Run { from: Some(&from), plan: plan(&to_more, 0), ..run };
    joint(&run, &several, &()).unwrap();
    let (tensors, meta) = last(&to_more);
    let values = |name: &str| tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values("qualities.1.density.bias0"), values("density.bias0"));
    let trained = from.0["side.embedding"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values("side.embedding"), trained);
    assert_eq!(codec_of(&meta).unwrap().qualities, qualities);
    let trained = joint(&Run { plan: plan(&to_more, 3), ..run.clone() }, &several, &()).unwrap();
    assert!(trained.metrics["bits_1"] > trained.metrics["bits_0"], "{:?}", trained.metrics);
    let error = refused(joint(&run, &Joint { shares: vec![1], ..several.clone() }, &())).1;
    assert!(error.starts_with("shares must be one for each of 2 qualities"), "{error}");
    let wild = vec![Quality { steps: 1.0, rate_weight: -1.0 }];
    let error = refused(joint(&run, &Joint { codec: several.codec.clone().qualities(wild), ..several.clone() }, &())).1;
    assert_eq!(error, "the rate weight must be finite and at least 0, not -1");

    // It freezes, and its qualities can be trained further.
    let (tensors, meta) = last(&to_more);
    let shape = codec_of(&meta).unwrap();
    let float = FloatCodec::from_weights(&tensors, &shape, 96, Precision::AsFrozen).unwrap();
    let qualities: Vec<Quality> = qualities.into_iter().map(|quality| quality.on_grid(float.grid)).collect();
    let ids = corpus.ids()[..16].to_vec();
    let sequence = Sequence { hidden: (0..16 * 16).map(|i| (i % 7) as f32).collect(), ids };
    let model = freeze(&float, &qualities, &[sequence], corpus.ids(), 1).unwrap();
    assert_eq!(model.side().map(|side| (side.ages(), side.vocabulary(), side.width())), Some((2, VOCAB as u32, 4)));
    let from = last(&to_more);
    dial(&Run { from: Some(&from), plan: plan(&to_dial, 2), ..run }, &Dial::default(), &()).unwrap();
    assert_eq!(codec_of(&last(&to_dial).1).unwrap().side, shape.side);
}

#[test]
fn runs_that_cannot_begin_say_why() {
    let folder = Folder::new();
    let (corpus, held_out) = texts();
    let [to_host, to_joint, to_dial] = ["host", "joint", "dial"].map(|name| folder.path(name));
    let new = |out: &str| Run::new(&corpus, &held_out, VOCAB, plan(out, 2));

    let (error, line) = refused(joint(&new(&to_joint), &recipe(), &()));
    assert!(matches!(error, Error::NoStart(_)), "{error:?}");
    assert_eq!(line, "a run with a codec begins with a host's checkpoint");
    let (error, line) = refused(base(&new(&to_host), &host().vocab(31), &()));
    assert!(matches!(error, Error::Vocabulary { tokenizer: VOCAB, host: 31 }), "{error:?}");
    assert_eq!(line, "the tokenizer has 30 entries, the host's vocabulary 31");
    let short = Corpus::from_ids(vec![1; 8]);
    let error = refused(base(&Run { corpus: &short, ..new(&to_host) }, &host(), &())).0;
    assert!(matches!(error, Error::ShortCorpus { found: 8, wanted: 9 }), "{error:?}");

    base(&new(&to_host), &host(), &()).unwrap();
    let options = BTreeMap::from([("text".to_string(), "another".to_string())]);
    let error = refused(base(&Run { options, ..new(&to_host) }, &host(), &())).0;
    assert!(matches!(&error, Error::Differs { key, .. } if key == "text"), "{error:?}");

    let from = last(&to_host);
    let of_host = |out: &str| Run { from: Some(&from), ..new(out) };
    type Change = fn(&mut Joint);
    let refusals: [(Change, &str); 5] = [
        (|joint| joint.codec.h_widths[0] = 15, "the first width of h must be the host's, 16, not 15"),
        (|joint| joint.codec.h_widths.clear(), "the first width of h must be the host's, 16, not none"),
        (|joint| joint.rate_weight = -1.0, "the rate weight must be finite and at least 0, not -1"),
        (|joint| joint.split = Some(3), "a model of 3 blocks cannot be split after 3"),
        (|joint| joint.split = Some(0), "a model of 3 blocks cannot be split after 0"),
    ];
    for (change, wanted) in refusals {
        let mut own = recipe();
        change(&mut own);
        assert_eq!(refused(joint(&of_host(&to_joint), &own, &())).1, wanted);
    }
    let (error, line) = refused(dial(&new(&to_dial), &Dial::default(), &()));
    assert!(matches!(error, Error::NoStart(_)), "{error:?}");
    assert_eq!(line, "a run with a codec begins with a host's checkpoint");
    let error = refused(dial(&of_host(&to_dial), &Dial::default(), &())).0;
    assert!(matches!(&error, Error::Lacks { part, .. } if part == "codec networks"), "{error:?}");

    joint(&of_host(&to_joint), &recipe(), &()).unwrap();
    let from = last(&to_joint);
    let of_joint = |out: &str| Run { from: Some(&from), ..new(out) };
    let (error, line) = refused(dial(&of_joint(&to_dial), &Dial::default(), &()));
    assert!(matches!(error, Error::Qualities { checkpoint: 0, asked: 0 }), "{error:?}");
    assert_eq!(line, "the checkpoint's codec has one quality, so the run needs the qualities to train");
    for (quality, wanted) in [
        (
            Quality { steps: 5_000.0, rate_weight: 0.0 },
            "a quality's factor of the steps must be 0.001 to 1000, not 5000",
        ),
        (Quality { steps: 1.0, rate_weight: f64::NAN }, "the rate weight must be finite and at least 0, not NaN"),
    ] {
        let own = Dial { qualities: vec![Quality::default(), quality], ..Dial::default() };
        assert_eq!(refused(dial(&of_joint(&to_dial), &own, &())).1, wanted);
    }
    let many = Dial { qualities: vec![Quality::default(); 257], ..Dial::default() };
    let line = refused(dial(&of_joint(&to_dial), &many, &())).1;
    assert_eq!(line, "the number of qualities must be at most 256, not 257");
    let two = Dial { qualities: vec![Quality::default(); 2], ..Dial::default() };
    let left_out = Dial { dropout: Dropout::new(0.25).unwrap(), ..two.clone() };
    let line = refused(dial(&of_joint(&to_dial), &left_out, &())).1;
    assert_eq!(line, "the dropout of side indices must be 0: the codec takes none, not 0.25");
    let side = side::Shape { ages: 2, vocabulary: 1, width: 4 };
    let informed = Dial { side: Some(side), ..left_out };
    let line =
        refused(dial(&of_joint(&to_dial), &Dial { side: Some(side::Shape { width: 3, ..side }), ..two.clone() }, &()))
            .1;
    let says = "the widths of g_y must be those of [4, 8, 16] with more inputs, a multiple of 2 heads, not [7, 8, 16]";
    assert_eq!(line, says);
    dial(&of_joint(&folder.path("informed")), &informed, &()).unwrap();
    let dialled = last(&folder.path("informed"));
    assert_eq!(codec_of(&dialled.1).unwrap().side, Some(side::Shape { vocabulary: VOCAB, ..side }));
    let line = refused(dial(&Run { from: Some(&dialled), ..new(&folder.path("twice")) }, &informed, &())).1;
    assert_eq!(line, "the ages of side indices must be left out: the codec takes some already, not 2");
    dial(&of_joint(&to_dial), &two, &()).unwrap();
    let from = last(&to_dial);
    let again = |out: &str, recipe: &Dial| dial(&Run { from: Some(&from), ..new(&folder.path(out)) }, recipe, &());
    let three = Dial { qualities: vec![Quality::default(); 3], ..Dial::default() };
    let (error, line) = refused(again("again", &three));
    assert!(matches!(error, Error::Qualities { checkpoint: 2, asked: 3 }), "{error:?}");
    assert_eq!(line, "the checkpoint's codec has 2 qualities, so the run can be given as many or none, not 3");
    again("again", &Dial::default()).unwrap();
    let finer = [Quality { steps: 0.9, rate_weight: 0.1 }, Quality { steps: 0.3, rate_weight: 0.0 }];
    again("finer", &Dial { qualities: finer.to_vec(), ..Dial::default() }).unwrap();
    let qualities = |out: &str| codec_of(&last(&folder.path(out)).1).unwrap().qualities;
    assert_eq!((qualities("again"), qualities("finer")), (two.qualities.clone(), finer.to_vec()));
    let fourier = Joint { codec: recipe().codec.entropy_model(Kind::Fourier), ..recipe() };
    let host = last(&to_host);
    let run = Run { from: Some(&host), ..new(&folder.path("fourier")) };
    joint(&run, &Joint { rate_weight: 0.0, ..fourier }, &()).unwrap();
    let from = last(&folder.path("fourier"));
    let error = refused(dial(&Run { from: Some(&from), ..new(&folder.path("none")) }, &two, &())).0;
    assert!(matches!(error, Error::NearestAlone { .. }), "{error:?}");
}
