//! Hidden states that `midspan eval` hands out and takes back.

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::support::{Folder, midspan, tensor_file};

const TEXT: &str = "It was a cold evening in November, and the old house was quiet.\n";

fn near(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-6
}

/// What another codec gives back is judged as the project's own codec is.
#[test]
fn exported_states_come_back_from_any_codec() {
    let folder = Folder::new();
    let text = folder.file("text.txt", TEXT.repeat(8).as_bytes());
    let eval = |more: &[&str]| midspan(&[&["eval", "--text", &text, "--frames", "40"], more].concat()).succeeded();
    let states = folder.path("states.safetensors");
    assert_eq!(eval(&["--export", &states]).stdout, "40 frames\n");
    let bytes = std::fs::read(&states).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let integers = |name: &str| -> Vec<u64> {
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64);
        tensor.data().as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
    };
    assert_eq!(file.tensor("hidden").unwrap().shape(), [40, 256]);
    assert_eq!(integers("starts"), [0]);
    assert_eq!((integers("ids").len(), &integers("ids")[1..]), (40, &integers("targets")[..39]));

    let same = eval(&["--received", &states]).json();
    assert_eq!((&same["frames"], &same["distortion"]), (&40.into(), &0.0.into()));
    assert_eq!((&same["greedy_agreement"], &same["perplexity"]), (&1.0.into(), &same["perplexity_unquantised"]));
    let (stream, decoded) = (folder.path("stream.msp"), folder.path("decoded.safetensors"));
    midspan(&["encode", &states, "-o", &stream]).succeeded();
    midspan(&["decode", &stream, "-o", &decoded]).succeeded();
    let (own, other) = (eval(&[]).json(), eval(&["--received", &decoded, "--received-tensor", "hidden"]).json());
    assert!(near(&own["divergence"], &other["divergence"]), "{own} {other}");
    assert!(near(&own["perplexity_through_codec"], &other["perplexity"]), "{own} {other}");
    assert_eq!(own["without_codec"], other["without_codec"]);
    assert!(other["divergence"].as_f64().unwrap() > 0.0 && other["distortion"].as_f64().unwrap() > 0.01, "{other}");
}

#[test]
fn states_of_another_text_are_refused() {
    let folder = Folder::new();
    let text = folder.file("text.txt", TEXT.repeat(8).as_bytes());
    let states = folder.path("states.safetensors");
    let eval = |more: &[&str]| midspan(&[&["eval", "--text", &text, "--frames", "40"], more].concat());
    eval(&["--export", &states]).succeeded();
    let received = |frames: &str| midspan(&["eval", "--text", &text, "--frames", frames, "--received", &states]);
    received("41").refused(&["states.safetensors", "fewer than 41 frames"]);
    received("39").refused(&["states.safetensors", "more than 39 frames"]);
    eval(&["--received", &states, "--received-tensor", "ids"]).refused(&["ids", "I64"]);
    eval(&["--received", &states, "--received-tensor", "none"]).refused(&["no tensor \"none\""]);
    let other = folder.file("other.txt", "Nobody had been there for a year, or so it was said.\n".repeat(8).as_bytes());
    midspan(&["eval", "--text", &other, "--frames", "40", "--received", &states])
        .refused(&["states.safetensors", "\"targets\" are not the tokens of the text"]);
    let narrow = folder.file("narrow.safetensors", &tensor_file(Dtype::F32, &[40, 2], &[0; 320]));
    eval(&["--received", &narrow]).refused(&["[40, 2]", "256"]);
    // What they leave no room for.
    assert_eq!(eval(&["--received", &states, "--export", &states]).code, Some(2));
    for option in ["--received", "--export"] {
        assert_eq!(eval(&[option, &states, "--quality", "1"]).code, Some(2));
        assert_eq!(eval(&[option, &states, "--rate-only"]).code, Some(2));
    }
    eval(&["--export", &folder.path("no/folder")]).refused(&["no/folder"]);
}

/// Tokens that both ends know cost nothing, those that the stream carries cost their bytes, and without them Y costs more.
#[test]
fn tokens_cost_what_the_far_end_does_not_know() {
    let folder = Folder::new();
    let text = folder.file("text.txt", TEXT.repeat(20).as_bytes());
    let eval = |more: &[&str]| {
        midspan(&[&["eval", "--text", &text, "--frames", "200", "--rate-only", "--batch", "1,50"], more].concat())
    };
    let report = |tokens: &str| eval(&["--tokens", tokens]).succeeded().json();
    let [known, sent, none] = ["known", "sent", "none"].map(report);
    let default = eval(&[]).succeeded().json();
    assert_eq!([&default["tokens"], &default["batches"][1]["bits"]], [&known["tokens"], &known["batches"][1]["bits"]]);
    assert_eq!([&known["tokens"], &sent["tokens"], &none["tokens"]], ["known", "sent", "none"]);
    for (batch, index) in [(0, 16.0), (1, 4.0)] {
        let figure = |report: &serde_json::Value, name: &str| report["batches"][batch][name].as_f64().unwrap();
        assert_eq!(figure(&known, "target_bits"), figure(&sent, "target_bits"));
        assert!(figure(&sent, "bits") > figure(&known, "bits") + index, "{sent}");
        assert!(figure(&none, "target_bits") > 1.5 * figure(&known, "target_bits"), "{none}");
    }
    eval(&["--tokens", "none", "--passages", &text]).refused(&["--passages are measured with the tokens known"]);
}
