//! From a text to a model that talks: tokenizer, host, codec, freezing.

use crate::support::{Folder, midspan, text};

/// A run's last evaluation, from its log.
fn last_evaluation(folder: &Folder, run: &str) -> serde_json::Value {
    let log = std::fs::read_to_string(folder.path(&format!("{run}/log.jsonl"))).unwrap();
    let mut lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.rfind(|line| line["kind"] == "eval").unwrap()
}

#[test]
fn a_text_becomes_a_model_that_talks() {
    let folder = Folder::new();
    let train = folder.file("train.txt", text(4_000).as_bytes());
    let valid = folder.file("valid.txt", text(300).as_bytes());
    let (tokenizer, model) = (folder.path("tokenizer.json"), folder.path("model"));
    let (base, joint) = (folder.path("base"), folder.path("joint"));
    let (from_base, from_joint) = (format!("{base}/last.safetensors"), format!("{joint}/last.safetensors"));
    midspan(&["train", "tokenizer", "--text", &train, "--out", &tokenizer, "--vocab", "300"]).succeeded();
    let data = ["--text", &train, "--valid", &valid, "--tokenizer", &tokenizer];
    let small = ["--rows", "4", "--micro", "2", "--warmup", "2"];
    let learn = |what: &str, out: &str, more: &[&str]| {
        midspan(&[&["train", what, "--out", out], &data[..], &small, more].concat())
    };
    let host = ["--width", "32", "--layers", "2", "--split", "1", "--heads", "2", "--context", "32"];

    learn("base", &base, &[&host[..], &["--steps", "20"]].concat()).succeeded();
    assert_eq!(last_evaluation(&folder, "base")["step"], 20);
    // An unfinished run is resumed; a joint run has its own codec.
    learn("base", &base, &["--steps", "30"]).succeeded();
    assert_eq!(last_evaluation(&folder, "base")["step"], 30);
    learn("joint", &joint, &["--steps", "5"]).refused(&["begins with a host"]);
    let codec = ["--from", &from_base, "--h-widths", "32,16,8", "--g-y-widths", "8,16,32"];
    learn("joint", &joint, &[&codec[..], &["--steps", "20", "--rate-weight=-1"]].concat()).refused(&["--rate-weight"]);
    learn("joint", &joint, &[&codec[..], &["--steps", "20", "--rate-weight", "0.25"]].concat()).succeeded();
    let learnt = last_evaluation(&folder, "joint");
    assert!(learnt["bits"].as_f64().unwrap() > 0.0 && learnt["step"] == 20, "{learnt}");

    let freeze = |from: &str, out: &str, more: &[&str]| {
        let texts = ["--tokenizer", &tokenizer, "--calibrate", &train, "--compare", &valid, "--sequences", "3"];
        midspan(&[&["freeze", "--from", from, "--out", out], &texts[..], more].concat())
    };
    freeze(&from_base, &model, &[]).refused(&["lacks codec"]);
    freeze(&folder.path("none"), &model, &[]).refused(&["none"]);
    freeze(&from_joint, &model, &["--quality", "1,0.5", "--rate-weight", "0.1"]).refused(&["1 rate weights for 2"]);
    freeze(&from_joint, &model, &["--quality", "0"]).refused(&["--quality"]);
    freeze(&from_joint, &model, &["--quality", "0.001"]).refused(&["finer", "more than"]);
    assert!(!std::path::Path::new(&model).exists(), "nothing is written unless everything could be made");
    freeze(&from_joint, &model, &[]).succeeded();
    for (bytes, says) in [(&b""[..], "no text"), (&[b'a', 0xFF, 0xFE], "UTF-8")] {
        let bad = folder.file("bad.txt", bytes);
        let texts = ["--tokenizer", &tokenizer, "--calibrate", &train, "--compare", &bad];
        let nowhere = folder.path("nowhere");
        midspan(&[&["freeze", "--from", &from_joint, "--out", &nowhere], &texts[..]].concat())
            .refused(&["bad.txt", says]);
        assert!(!std::path::Path::new(&nowhere).exists());
        let says = if bytes.is_empty() { "too little text" } else { says };
        midspan(&["eval", "--model", &model, "--text", &bad]).refused(&["bad.txt", says]);
    }
    let bytes = std::fs::read(format!("{model}/codec.safetensors")).unwrap();
    let frozen = midspan::model::CodecModel::from_bytes(&bytes, 1 << 24).unwrap();
    assert_eq!((frozen.hidden_width(), frozen.hyper_prior_width(), frozen.rate_weight(0)), (32, 8, 0.25));

    let passages = folder.file("passages.jsonl", b"{\"text\": \"It the old house by a river\"}\n");
    let eval = |weight: &str| {
        let options = ["--frames", "128", "--batch", "1,16", "--rate-weight", weight, "--passages", &passages];
        midspan(&[&["eval", "--model", &model, "--text", &valid], &options[..]].concat()).succeeded().json()
    };
    let (nearest, chosen) = (eval("0"), eval("0.25"));
    let bits = |report: &serde_json::Value| report["batches"][1]["target_bits"].as_f64().unwrap();
    assert!(bits(&chosen) < bits(&nearest), "{} {}", bits(&chosen), bits(&nearest));
    assert_eq!(chosen["w_sha256"], nearest["w_sha256"]);
    let figure = |report: &serde_json::Value, name: &str| report[name].as_f64().unwrap_or_else(|| panic!("{report}"));
    assert!(figure(&chosen, "greedy_agreement") > 0.9 && figure(&chosen, "divergence") > 0.0, "{chosen}");
    assert!(figure(&nearest, "divergence") < figure(&chosen, "divergence"), "{nearest} {chosen}");
    assert!(chosen["last_word"][1].is_number(), "{chosen}");
    let command = "midspan eval --model model --text valid.txt --frames 128 --batch 1,16 --rate-weight 0.25";
    assert_eq!(chosen["command"], format!("{command} --passages passages.jsonl"));
    let eight = &chosen["without_codec"]["int8 rows"];
    assert!(figure(eight, "greedy_agreement") > 0.9 && eight["bits"] == 272.0, "{eight}");
    // A dial from the same training: finer steps cost more bits and change the predictions less.
    let dial = folder.path("dial");
    freeze(&from_joint, &dial, &["--quality", "1,0.25,3", "--rate-weight", "0.25,0,0"]).succeeded();
    let of_quality = |quality: &str| {
        let options = ["--frames", "128", "--batch", "16", "--quality", quality];
        midspan(&[&["eval", "--model", &dial, "--text", &valid], &options[..]].concat()).succeeded().json()
    };
    let [same, fine, coarse] = ["0", "1", "2"].map(of_quality);
    assert_eq!(same["y_sha256"], chosen["y_sha256"], "quality 0 is the model of one quality");
    let rate = |report: &serde_json::Value| report["batches"][0]["bits"].as_f64().unwrap();
    assert!(rate(&fine) > rate(&same) && rate(&coarse) < rate(&same), "{fine} {same} {coarse}");
    assert!(figure(&fine, "divergence") < figure(&same, "divergence"), "{fine} {same}");
    assert!(figure(&coarse, "divergence") > figure(&same, "divergence"), "{coarse} {same}");
    // All in one list, and as a picture.
    let picture = folder.path("qualities.svg");
    let all = ["--frames", "128", "--batch", "16", "--quality", "all", "--plot", &picture];
    let all = midspan(&[&["eval", "--model", &dial, "--text", &valid], &all[..]].concat()).succeeded().json();
    let qualities: Vec<_> = all.as_array().unwrap().iter().map(|report| report["quality"].as_u64().unwrap()).collect();
    assert_eq!(qualities, [0, 1, 2]);
    assert_eq!(all[1]["y_sha256"], fine["y_sha256"]);
    assert!(std::fs::read_to_string(&picture).unwrap().contains("int4 rows"));
    // Without the second half there is nothing to draw for qualities, which is reported before they are measured.
    let rate_only = |more: &[&str]| {
        let options = ["--frames", "128", "--batch", "16", "--rate-only"];
        midspan(&[&["eval", "--model", &dial, "--text", &valid], &options[..], more].concat())
    };
    rate_only(&["--quality", "all", "--plot", &picture]).refused(&["--rate-only"]);
    let rates = rate_only(&["--quality", "1", "--plot", &picture]).succeeded().json();
    assert!(rates.get("greedy_agreement").is_none(), "{rates}");
    assert_eq!(rates["y_sha256"], fine["y_sha256"]);
    assert!(std::fs::read_to_string(&picture).unwrap().contains("16 frames a chunk"));
    // If the picture cannot be written, the figures are still printed.
    let nowhere = folder.path("none/such.svg");
    let lost = rate_only(&["--quality", "1", "--plot", &nowhere]);
    assert!(lost.stdout.contains("y_sha256"), "{lost:?}");
    lost.refused(&["such.svg"]);
    let four = ["eval", "--model", &dial, "--text", &valid, "--quality", "3"];
    midspan(&four).refused(&["quality"]);
    assert_eq!(rates["tokens"], serde_json::Value::Null, "{rates}");
    rate_only(&["--tokens", "sent"]).refused(&["--tokens", "takes no side indices"]);

    let report = midspan(&["generate", "It was", "-n", "5", "--model", &dial, "--quality", "1", "--json"]).succeeded();
    assert_eq!(report.json()["matched"], true);
    let report = midspan(&["generate", "It was", "-n", "5", "--model", &model, "--json"]).succeeded().json();
    assert_eq!((&report["matched"], &report["generated_tokens"]), (&true.into(), &5.into()), "{report}");

    // Trained qualities: narrower networks, and gains and densities of W for each.
    let trained = folder.path("trained");
    let qualities = ["--from", &from_joint, "--quality", "1,0.5", "--g-y-widths", "8,12,32"];
    let weights = |weights: &'static str| ["--steps", "6", "--rate-weight", weights];
    learn("dial", &trained, &[&qualities[..], &weights("0")].concat()).refused(&["1 rate weights for 2"]);
    learn("dial", &trained, &[&qualities[..], &weights("0,-1")].concat()).refused(&["--rate-weight"]);
    learn("dial", &trained, &[&qualities[..4], &["--g-y-widths", "8,18,32"], &weights("0,0")].concat())
        .refused(&["cannot be cut"]);
    let from_start = ["--from", &from_base, "--quality", "1", "--rate-weight", "0", "--steps", "6"];
    learn("dial", &trained, &from_start).refused(&["lacks codec"]);
    learn("dial", &trained, &[&qualities[..], &weights("0,0"), &["--share", "1"]].concat())
        .refused(&["shares must be one for each of 2 qualities", "not [1]"]);
    learn("dial", &trained, &[&qualities[..], &weights("0.25,0")].concat()).succeeded();
    let learnt = last_evaluation(&folder, "trained");
    assert!(learnt["bits_1"].as_f64() > learnt["bits_0"].as_f64() && learnt["step"] == 6, "{learnt}");
    let float = folder.path("float");
    learn("dial", &float, &[&qualities[..], &weights("0.25,0"), &["--float"]].concat()).succeeded();
    let (from_trained, from_float) = (format!("{trained}/last.safetensors"), format!("{float}/last.safetensors"));
    freeze(&from_trained, &dial, &["--quality", "1,0.5"]).refused(&["qualities of its own"]);
    freeze(&from_trained, &dial, &["--against", &from_joint]).refused(&["without --float"]);
    let other = folder.path("other");
    let one = ["--from", &from_joint, "--quality", "1", "--rate-weight", "0", "--steps", "2", "--float"];
    learn("dial", &other, &one).succeeded();
    freeze(&from_trained, &dial, &["--against", &format!("{other}/last.safetensors")]).refused(&["other qualities"]);
    freeze(&from_float, &dial, &[]).refused(&["trained with --float"]);
    learn("dial", &float, &[&qualities[..], &weights("0.25,0")].concat()).refused(&["another float: true"]);
    let printed = freeze(&from_trained, &dial, &["--against", &from_float]).succeeded().stdout;
    assert_eq!(printed.matches("trained in float").count(), 2, "{printed}");
    assert_eq!(printed.matches("with escapes").count(), 4, "{printed}");
    let cost = freeze(&from_trained, &dial, &["--against", &from_float, "--json"]).succeeded().json();
    let command = cost["command"].as_str().unwrap();
    assert!(command.contains("--from trained/last") && command.contains("--against float/last"), "{command}");
    let steps = figure(&cost["qualities"][1], "steps");
    assert!((steps - 0.5).abs() < 0.02 && cost["qualities"].as_array().unwrap().len() == 2, "{cost}");
    let shown = format!("{:.2}: ", figure(&cost["qualities"][1], "trained_in_float_bits"));
    assert!(printed.contains(&shown), "{printed} {cost}");
    for name in ["float_bits", "trained_in_float_bits"] {
        let [exact, with_escapes] =
            ["", "_with_escapes"].map(|end| figure(&cost["qualities"][1], &format!("{name}{end}")));
        // Escapes bound what a value far out costs, and take a little mass from all others.
        assert!((0.5 * exact..1.001 * exact).contains(&with_escapes) && with_escapes != exact, "{name}: {cost}");
    }
    let [first, second] = ["0", "1"].map(of_quality);
    assert!(rate(&second) > rate(&first), "{first} {second}");
    assert_eq!((&first["rate_weight"], &second["rate_weight"]), (&0.25.into(), &0.0.into()));
    let again = folder.path("again");
    let further = |more: &[&str]| learn("dial", &again, &[&["--from", &from_trained, "--steps", "2"], more].concat());
    further(&["--quality", "1", "--rate-weight", "0"]).refused(&["has 2 qualities", "not 1"]);
    further(&["--side-dropout", "0.5"]).refused(&["--side-dropout", "the codec takes none"]);
    further(&["--side-dropout", "1.5"]).refused(&["--side-dropout", "0 to 1"]);
    learn("dial", &folder.path("tokens"), &["--from", &from_trained, "--steps", "2", "--side-ages", "1"]).succeeded();
    further(&[]).succeeded();
    learn("dial", &folder.path("none"), &["--from", &from_joint]).refused(&["give --quality"]);
}
