//! A codec for a host that does not change, without learning.

use midspan::model::CodecModel;
use midspan::model::synthetic::Random;
use safetensors::tensor::{Dtype, TensorView};

use crate::fit::{llama, tokenizer};
use crate::support::{Bytes, DEFAULT_MODEL, Folder, command, midspan, tensor_file};

/// A capture of `frames` hidden states of 24 values that depend on each other.
pub(crate) fn capture(frames: usize) -> Vec<u8> {
    let mut random = Random::new(3);
    let mut values: Vec<f32> = Vec::new();
    for _ in 0..frames {
        let mut noise = || (random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let common = noise();
        values.extend((0..24).map(|at| (common + 0.3 * noise()) * (1 + at) as f32));
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor_file(Dtype::F32, &[frames, 24], &bytes)
}

/// A capture of `frames` hidden states of 24 values of which the token tells most, with the tokens.
fn capture_with_ids(frames: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let table: Vec<f32> = (0..24 * 50).map(|_| (random.next() >> 40) as f32 / (1 << 20) as f32).collect();
    let ids: Vec<i64> = (0..frames).map(|_| random.within(0, 49).into()).collect();
    let rows = ids.iter().flat_map(|id| table[24 * *id as usize..][..24].to_vec());
    let rows = rows.map(|value| value + (random.next() >> 40) as f32 / (1 << 24) as f32);
    let hidden: Vec<u8> = rows.flat_map(f32::to_le_bytes).collect();
    let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let tensors = [("hidden", view(Dtype::F32, &[frames, 24], &hidden)), ("ids", view(Dtype::I64, &[frames], &ids))];
    safetensors::serialize(tensors, None).unwrap()
}

/// A figure of a quality.
fn figure(row: &serde_json::Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}"))
}

#[test]
fn a_capture_becomes_a_codec_that_encodes_it() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &capture(2_000));
    let (codec, stream, back) =
        (folder.path("codec.safetensors"), folder.path("a.msp"), folder.path("back.safetensors"));
    let run = midspan(&["calibrate", "--states", &states, "--out", &codec, "--json"]).succeeded();
    let report = run.json();
    assert_eq!(
        (&report["frames"], &report["width"], &report["sensitivity"]),
        (&1_800.into(), &24.into(), &false.into())
    );
    let rows = report["qualities"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for pair in rows.windows(2) {
        let [coarse, fine] = [&pair[0], &pair[1]];
        assert!(figure(coarse, "bits") < figure(fine, "bits"), "{report}");
        assert!(figure(coarse, "distortion") > figure(fine, "distortion"), "{report}");
        assert!(coarse["divergence"].is_null() && coarse["frames"] == 200, "{report}");
    }
    let model = CodecModel::from_bytes(&std::fs::read(&codec).unwrap(), 1 << 24).unwrap();
    assert_eq!((model.qualities(), model.hidden_width()), (6, 24));
    midspan(&["encode", &states, "-o", &stream, "--model", &codec, "--quality", "5"]).succeeded();
    midspan(&["decode", &stream, "-o", &back, "--model", &codec]).succeeded();
    // The same again gives the same codec, and a line for people says what was not measured.
    let again = folder.path("again.safetensors");
    let told = midspan(&["calibrate", "--states", &states, "--out", &again]).succeeded().stdout;
    assert!(told.contains("divergence was not measured") && told.contains("quality  bits a frame"), "{told}");
    assert_eq!(std::fs::read(again).unwrap(), std::fs::read(codec).unwrap());
}

#[test]
fn what_both_ends_know_is_not_sent() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &capture_with_ids(3_000, 5));
    let (codec, plain) = (folder.path("codec.safetensors"), folder.path("plain.safetensors"));
    let calibrate = |out: &str, more: &[&str]| {
        midspan(&[&["calibrate", "--states", &states, "--out", out, "--json"], more].concat()).succeeded().json()
    };
    let (with, without) = (calibrate(&codec, &[]), calibrate(&plain, &["--no-side"]));
    assert_eq!((&with["vocabulary"], &without["vocabulary"]), (&50.into(), &0.into()));
    assert_eq!((&with["ages"], &without["ages"]), (&3.into(), &0.into()));
    let bits = |report: &serde_json::Value| figure(&report["qualities"][4], "bits");
    assert!(bits(&with) < 0.6 * bits(&without), "{with} {without}");

    let (sent, known) = (folder.path("sent.msp"), folder.path("known.msp"));
    let encode = |out: &str, more: &[&str]| {
        let own = ["encode", &states, "-o", out, "--model", &codec, "--quality", "4"];
        midspan(&[&own[..], more].concat())
    };
    encode(&sent, &["--side", &states]).succeeded();
    encode(&known, &["--side", &states, "--side-known"]).succeeded();
    let size = |path: &str| std::fs::metadata(path).unwrap().len();
    // About six bits for each of 3,000 indices.
    assert!((1_900..2_900).contains(&(size(&sent) - size(&known))), "{} {}", size(&sent), size(&known));
    let decode = |stream: &str, out: &str, more: &[&str]| {
        midspan(&[&["decode", stream, "-o", out, "--model", &codec], more].concat())
    };
    let (first, second) = (folder.path("first.safetensors"), folder.path("second.safetensors"));
    decode(&sent, &first, &[]).succeeded();
    decode(&known, &second, &["--side", &states]).succeeded();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    decode(&known, &second, &[])
        .refused(&["side indices of 128 frames from 0 on are not in the stream", "--side gives 0"]);
    midspan(&["verify", &known, "--model", &codec, "--side", &states]).succeeded();
    // Wrong ones do not pass.
    let wrong = folder.file("wrong.safetensors", &capture_with_ids(3_000, 6));
    midspan(&["verify", &known, "--model", &codec, "--side", &wrong]).refused(&[
        "known.msp",
        "the check of a frame",
        "or --side does not give what the encoder was given",
    ]);
    let few = folder.file("few.safetensors", &capture_with_ids(2_999, 5));
    midspan(&["verify", &known, "--model", &codec, "--side", &few]).refused(&["known.msp", "are not in the stream"]);
    let shown = midspan(&["inspect", &sent]).succeeded().stdout;
    assert!(shown.contains("side indices") && shown.contains("side_indices=true"), "{shown}");
    // A model that takes none, a tensor that is not there, and too few.
    midspan(&["encode", &states, "-o", &first, "--model", &plain, "--side", &states])
        .refused(&["takes no side indices"]);
    encode(&first, &["--side", &states, "--side-tensor", "tokens"]).refused(&["no tensor \"tokens\""]);
    encode(&first, &["--side", &few]).refused(&["2999 side indices, fewer than frames"]);
    // Tokens that the model does not know count as none.
    let strange: Vec<u8> = (0..3_000_u64).flat_map(|at| if at < 7 { 1 << 40 } else { at % 50 }.to_le_bytes()).collect();
    let strange = folder.file("strange.safetensors", &tensor_file(Dtype::U64, &[3_000], &strange));
    let run = encode(&first, &["--side", &strange, "--side-tensor", "hidden"]);
    assert!(run.code == Some(0) && run.stderr.contains("does not know 7 of 3000 tokens"), "{run:?}");
    // Those of the stream are compared with those that are given.
    decode(&sent, &second, &["--side", &states]).succeeded();
    decode(&sent, &second, &["--side", &wrong]).refused(&["frame 0 has side index", "in the stream, and --side gives"]);
    midspan(&["verify", &sent, "--model", &codec, "--side", &few])
        .refused(&["frame 2999 has a side index in the stream, and --side gives 2999 in all"]);
    // No input is replaced.
    let replaced = "the output would replace this input";
    encode(&states, &["--side", &states]).refused(&["states.safetensors", replaced]);
    decode(&sent, &states, &["--side", &states]).refused(&["states.safetensors", replaced]);
    midspan(&["calibrate", "--states", &states, "--out", &states]).refused(&["states.safetensors", replaced]);
    assert_eq!(std::fs::read(&states).unwrap(), capture_with_ids(3_000, 5));
    midspan(&["bench", "--model", &codec, "--frames", "64", "--repeats", "1"]).succeeded();
}

#[test]
fn the_far_half_knows_the_tokens_that_it_chose() {
    let folder = Folder::new();
    let text = folder
        .file("text.txt", "It was a cold evening in November, and the old house was dark. ".repeat(60).as_bytes());
    let codec = folder.path("codec.safetensors");
    let host = ["--host", DEFAULT_MODEL, "--text", &text];
    midspan(&[&["calibrate", "--out", &codec, "--distortion", "0.001"], &host[..]].concat()).succeeded();
    for file in ["host.safetensors", "tokenizer.json"] {
        std::fs::copy(format!("{DEFAULT_MODEL}/{file}"), folder.path(file)).unwrap();
    }
    let bundle = folder.path("");
    for mode in ["joined", "layered"] {
        let run = midspan(&["generate", "--model", &bundle, "-n", "12", "--mode", mode]).succeeded();
        assert!(format!("{}{}", run.stdout, run.stderr).contains("every decoded integer matched"), "{run:?}");
    }
}

#[test]
fn a_host_becomes_a_codec_with_its_divergence() {
    let folder = Folder::new();
    let (model, tokens) = (folder.file("model.bin", &llama()), folder.file("tokens.bin", &tokenizer()));
    let text = folder.file("text.txt", "Lily saw a cat by the old house. ".repeat(60).as_bytes());
    let codec = folder.path("codec.safetensors");
    let host = ["--llama", &model, "--tokenizer", &tokens, "--split", "1", "--text", &text];
    let arguments = ["calibrate", "--out", &codec, "--json", "--distortion", "0.2,0.001"];
    let report = midspan(&[&arguments[..], &host].concat()).succeeded().json();
    assert_eq!((&report["sensitivity"], &report["width"]), (&true.into(), &16.into()));
    let [coarse, fine] = [&report["qualities"][0], &report["qualities"][1]];
    assert!(figure(coarse, "divergence") > figure(fine, "divergence"), "{report}");
    assert!(figure(coarse, "agreement") < figure(fine, "agreement"), "{report}");
    let bytes = std::fs::read(codec).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..2_000]).contains("model.bin, split 1"), "which host it is for");
}

#[test]
fn sparse_maps_are_made_and_encode() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &capture(2_000));
    let (codec, stream, back) =
        (folder.path("codec.safetensors"), folder.path("a.msp"), folder.path("back.safetensors"));
    let at = |map: &str| {
        midspan(&["calibrate", "--states", &states, "--out", &codec, "--json", "--map", map]).succeeded().json()
    };
    let full = at("full");
    let sparse = at("sparse");
    let bits = |report: &serde_json::Value| figure(&report["qualities"][5], "bits_in_batches");
    // All channels may be predictors: the same bits, for half of the multiplications.
    assert!((bits(&sparse) / bits(&full) - 1.0).abs() < 0.05, "{full} {sparse}");
    assert_eq!(figure(&full["multiplications"], "decode"), 24.0);
    assert!(figure(&sparse["multiplications"], "decode") <= 11.5, "{sparse}");
    let model = CodecModel::from_bytes(&std::fs::read(&codec).unwrap(), 1 << 24).unwrap();
    assert!(model.synthesis().is_some_and(|map| map.sparse().is_some()));
    midspan(&["encode", &states, "-o", &stream, "--model", &codec, "--quality", "3"]).succeeded();
    midspan(&["decode", &stream, "-o", &back, "--model", &codec]).succeeded();
}

#[test]
fn what_cannot_be_calibrated_is_refused_in_a_line() {
    let folder = Folder::new();
    let out = folder.path("codec.safetensors");
    let run = |name: &str, bytes: &[u8], more: &[&str]| {
        let states = folder.file(name, bytes);
        midspan(&[&["calibrate", "--states", &states, "--out", &out], more].concat())
    };
    run("garbage", b"none", &[]).refused(&["garbage"]);
    run("one", &capture(1), &[]).refused(&["1 captured frames: at least 3 are needed"]);
    let nan = [1.0_f32, f32::NAN].map(f32::to_le_bytes).concat();
    run("nan", &tensor_file(Dtype::F32, &[1, 2], &nan), &[]).refused(&["nan", "NaN in frame 0, element 1"]);
    let still = [1.0_f32; 40].map(f32::to_le_bytes).concat();
    run("still", &tensor_file(Dtype::F32, &[20, 2], &still), &[])
        .refused(&["no linear map suits hidden states that do not vary"]);
    // Widths above 1,024, which have sparse maps.
    let wide = |frames: usize, value: &dyn Fn(usize) -> f32| {
        let values: Vec<u8> = (0..frames * 1_100).flat_map(|at| value(at).to_le_bytes()).collect();
        tensor_file(Dtype::F32, &[frames, 1_100], &values)
    };
    run("wide-nan", &wide(9, &|at| if at == 2_201 { f32::NAN } else { at as f32 }), &[])
        .refused(&["wide-nan", "NaN in frame 2, element 1"]);
    run("wide-one", &wide(1, &|at| at as f32), &[]).refused(&["1 captured frames: at least 3 are needed"]);
    // A line before says that the frames are few.
    let few = |name: &str, bytes: &[u8], more: &[&str], told: &str| {
        let run = run(name, bytes, more);
        assert!(run.code == Some(1) && run.stderr.contains("8 frames are few for 1100 channels"), "{run:?}");
        assert!(run.stderr.contains(told), "{run:?}");
    };
    few("wide-still", &wide(9, &|_| 1.0), &[], "no linear map suits hidden states that do not vary");
    few("wide-full", &wide(9, &|at| at as f32), &["--map", "full"], "at most 1024");
    run("order", &capture(30), &["--distortion", "0.001,0.1"]).refused(&["the distortions"]);
    midspan(&["calibrate", "--states", "missing", "--out", &out]).refused(&["missing"]);
    // A text is for a host.
    let states = folder.file("states", &capture(30));
    midspan(&["calibrate", "--states", &states, "--text", &states, "--out", &out]).refused(&["--text is for a host"]);
    let little = folder.file("little.txt", b"It was");
    let host = ["--host", DEFAULT_MODEL, "--text", &little, "--out", &out];
    midspan(&[&["calibrate"], &host[..]].concat()).refused(&["little.txt", "at least 20 are needed"]);
    assert!(!std::path::Path::new(&out).exists());
    // Few frames, and half precision, are told, and a codec is made.
    let few = run("few", &capture(15), &[]);
    assert!(few.code == Some(0) && few.stderr.contains("14 frames are few for 24 channels"), "{few:?}");
    // Patterns of f16 from 1 to below 2.
    let halves: Vec<u8> = (0..120_u16).flat_map(|i| (0x3C00 + i * i % 971).to_le_bytes()).collect();
    let half = run("half", &tensor_file(Dtype::F16, &[40, 3], &halves), &[]);
    assert!(half.code == Some(0) && half.stderr.contains("F16 hidden states are taken as f32"), "{half:?}");
    // Options of another source are not ignored.
    let ignored = midspan(&["calibrate", "--states", &states, "--split", "2", "--out", &out]);
    assert_eq!(ignored.code, Some(2), "{ignored:?}");
}

/// A capture of 24 values a frame with a sensitivity: 1 on the diagonal, `others` elsewhere.
fn weighed(others: f32) -> Vec<u8> {
    let states = capture(400);
    let hidden = safetensors::SafeTensors::deserialize(&states).unwrap().tensor("hidden").unwrap().data().to_vec();
    let weight = (0..24 * 24).map(|at| if at % 25 == 0 { 1.0 } else { others });
    let weight: Vec<u8> = weight.flat_map(f32::to_le_bytes).collect();
    let view = |shape: &[usize], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
    let tensors = [("hidden", view(&[400, 24], &hidden)), ("sensitivity", view(&[24, 24], &weight))];
    safetensors::serialize(tensors, None).unwrap()
}

#[test]
fn an_indefinite_sensitivity_is_refused() {
    let folder = Folder::new();
    let out = folder.path("codec.safetensors");
    let place = ["--lambda", "0.1", "--results", &folder.path("results"), "--work", &folder.path("work")];
    for (others, told) in [(5.0, "its diagonal is too small for"), (-0.9, "has a negative eigenvalue")] {
        let states = folder.file("states.safetensors", &weighed(others));
        midspan(&["calibrate", "--states", &states, "--out", &out]).refused(&["states.safetensors", told]);
        midspan(&[&["fit", "--states", &states], &place[..]].concat()).refused(&["states.safetensors", told]);
    }
    let states = folder.file("states.safetensors", &weighed(0.9));
    midspan(&["calibrate", "--states", &states, "--out", &out]).succeeded();
}

/// One channel is large in the first frame of each hundred, as in real models.
#[test]
fn a_codec_that_misses_what_was_asked_for_is_told() {
    let folder = Folder::new();
    let out = folder.path("codec.safetensors");
    let mut random = Random::new(3);
    let values = (0..1_000 * 32_usize).map(|at| {
        let large = if at % 3_200 == 0 { 1_000.0 } else { 0.0 };
        large + (random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    });
    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    let states = folder.file("states.safetensors", &tensor_file(Dtype::F32, &[1_000, 32], &bytes));
    let run = midspan(&["calibrate", "--states", &states, "--out", &out, "--distortion", "0.1,0.03,0.01"]);
    let told = ["warning: ", "quality 0 ", " for 0.1", "the first of a sequence", "`sensitivity`"];
    assert!(run.code == Some(0) && told.iter().all(|part| run.stderr.contains(part)), "{run:?}");
}

#[test]
fn a_codec_goes_to_standard_output_and_a_text_comes_from_standard_input() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &capture(400));
    let codec = folder.path("codec.safetensors");
    let to = |out: &str| Bytes::from_run(command(&["calibrate", "--states", &states, "--out", out]), Vec::new());
    let (file, piped) = (to(&codec), to("-"));
    assert!(piped.code == Some(0) && piped.stdout == std::fs::read(&codec).unwrap(), "{}", piped.stderr);
    assert!(piped.stderr.contains("quality  bits a frame") && file.stderr.is_empty());
    let (model, tokens) = (folder.file("model.bin", &llama()), folder.file("tokens.bin", &tokenizer()));
    let text = "Lily saw a cat by the old house. ".repeat(60);
    let host = ["--llama", &model, "--tokenizer", &tokens, "--split", "1", "--text", "-", "--out", &codec];
    let read = Bytes::from_run(command(&[&["calibrate"], &host[..]].concat()), text.clone().into_bytes());
    assert!(read.code == Some(0), "{}", read.stderr);
    let (piped, text) = (std::fs::read(&codec).unwrap(), folder.file("text.txt", text.as_bytes()));
    let host = ["--llama", &model, "--tokenizer", &tokens, "--split", "1", "--text", &text, "--out", &codec];
    midspan(&[&["calibrate"], &host[..]].concat()).succeeded();
    assert!(piped == std::fs::read(&codec).unwrap());
    midspan(&["calibrate", "--states", "-", "--out", &codec]).refused(&["--states: it takes files, not -"]);
}

/// Help and messages lead to what works.
#[test]
fn what_is_asked_for_wrongly_is_told() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &capture(400));
    let out = folder.path("codec.safetensors");
    let help = midspan(&["calibrate", "--help"]).succeeded().stdout;
    assert!(help.contains("[default: 0.1,0.03,0.01,0.003,0.001,0.0003]") && help.contains("<SHARE,…>"), "{help}");
    assert!(!help.contains("FULL_MAX") && help.contains("up to a width of 1,024"), "{help}");
    let calibrate = |more: &[&str]| midspan(&[&["calibrate", "--states", &states, "--out", &out], more].concat());
    let rows = calibrate(&["--json"]).succeeded().json()["qualities"].clone();
    let asked: Vec<f64> = rows.as_array().unwrap().iter().map(|row| figure(row, "asked")).collect();
    assert_eq!(asked, midspan_train::calibrate::Calibration::default().distortions);
    for more in [["--split", "2"], ["--tokenizer", "x"], ["--text-bytes", "9"], ["--seed", "2"]] {
        let run = calibrate(&more);
        let told = ["cannot be used with", "--states", more[0]].iter().all(|part| run.stderr.contains(part));
        assert!(run.code == Some(2) && told, "{run:?}");
    }
    calibrate(&["--distortion", "1e-9"]).refused(&["a distortion must be at least about", "not 1e-9"]);
    let fit = |more: &[&str]| {
        let place = ["--lambda", "1", "--results", &out, "--work", &out];
        midspan(&[&["fit", "--states", &states], &place[..], more].concat())
    };
    for more in [["--split", "2"], ["--valid", "x"]] {
        let run = fit(&more);
        let told = ["cannot be used with", "--states", more[0]].iter().all(|part| run.stderr.contains(part));
        assert!(run.code == Some(2) && told, "{run:?}");
    }
    fit(&["--recipe", "../x"]).refused(&["--recipe", "../x"]);
    fit(&["--weight-decay=-5"]).refused(&["--weight-decay must be 0 or more, not -5"]);
    fit(&["--adam-lr", "nan"]).refused(&["--adam-lr must be 0 or more, not NaN"]);
    let ids = folder.file("ids.safetensors", &capture_with_ids(400, 5));
    let run = midspan(&["calibrate", "--states", &ids, "--out", &out, "--vocabulary", "10"]);
    assert!(run.code == Some(0) && run.stderr.contains("tokens are beyond and say nothing"), "{run:?}");
    let still = folder.file("still", &tensor_file(Dtype::F32, &[20, 2], &[0; 160]));
    midspan(&["calibrate", "--states", &still, "--out", &out]).refused(&["still", "no linear map suits"]);
    midspan(&["eval", "--text", &states, "--model", &out]).refused(&["codec.safetensors: no folder", "encode"]);
    let text = folder.file("text", b"It was\xFF");
    midspan(&["eval", "--text", &text]).refused(&["text: not valid UTF-8 at byte 6"]);
}

#[test]
fn the_embedded_host_can_be_calibrated() {
    let folder = Folder::new();
    let text = folder
        .file("text.txt", "It was a cold evening in November, and the old house was dark. ".repeat(60).as_bytes());
    let codec = folder.path("codec.safetensors");
    let run = midspan(&[
        "calibrate",
        "--host",
        DEFAULT_MODEL,
        "--text",
        &text,
        "--out",
        &codec,
        "--distortion",
        "0.01",
        "--json",
    ]);
    let report = run.json();
    assert!(report["width"] == 256 && report["qualities"][0]["agreement"].as_f64() > Some(0.5), "{report}");
}

#[test]
fn a_fit_from_a_capture_measures_no_divergence() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &capture_with_ids(3_000, 5));
    let (results, work) = (folder.path("results"), folder.path("work"));
    let fit = |more: &[&str]| {
        let pace = ["--steps", "6", "--rows", "4", "--micro", "2", "--warmup", "2", "--ramp", "1"];
        let codec = ["--h-widths", "24,8,4", "--g-y-widths", "4,32,32"];
        let place = ["--results", &results, "--work", &work, "--threads", "1"];
        midspan(&[&["fit", "--states", &states], &pace[..], &codec, &place, more].concat())
    };
    let said = fit(&["--lambda", "0.01"]).succeeded().stdout;
    assert!(said.contains("divergence was not measured") && said.contains(" is kept: loss "), "{said}");
    let name = format!("{results}/fit-states-lambda0.01-seed1");
    let outcome: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{name}.json")).unwrap()).unwrap();
    let model = CodecModel::from_bytes(&std::fs::read(format!("{name}.safetensors")).unwrap(), 1 << 24).unwrap();
    let fingerprint: String = model.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&outcome["fingerprint"], &outcome["sensitivity"]), (&fingerprint.into(), &false.into()));
    assert_eq!((model.qualities(), model.side().map(|side| side.vocabulary())), (1, Some(50)));
    let of = |part: &serde_json::Value, name: &str| figure(part, name);
    for part in ["calibrated", "learned"] {
        let judged = &outcome["compared"][part];
        assert!((of(judged, "loss") - of(judged, "error") - 0.01 * of(judged, "bits")).abs() < 1e-9, "{outcome}");
        assert!(judged["divergence"].is_null() && judged["agreement"].is_null(), "{outcome}");
    }
    assert_eq!(outcome["expected"]["frames"], 300);
    // The result is not made again, and not taken for one of other options.
    let again = fit(&["--lambda", "0.01"]).succeeded().stdout;
    assert!(again.contains("the result is there") && !again.contains("fit-states-lambda0.01-seed1\n"), "{again}");
    let other = fit(&["--lambda", "0.01", "--rate-weight", "0"]);
    assert!(!other.stdout.contains("rate_weight"), "{other:?}");
    other.refused(&["another rate_weight", "--recipe"]);
    let other = fit(&["--lambda", "0.01", "--adam-lr", "0.5"]);
    let told =
        "--adam-lr, --weight-decay or a factor of the rate: the result has another optimizer: adam_lr: 0.003, asked";
    assert!(!other.stderr.contains('{'), "{other:?}");
    other.refused(&[told, "asked for: adam_lr: 0.5\n"]);
    let told = "--steps, --warmup or --decay: the result has another schedule: decay: 0, asked for: decay: 1";
    fit(&["--lambda", "0.01", "--decay", "1"]).refused(&[told]);
    fit(&["--lambda", "0.01", "--start", "new"]).refused(&["--start new"]);
    fit(&["--lambda", "0.01", "--map", "sparse"]).refused(&["another codec"]);
    // Sparse maps stay as they were calibrated.
    assert!(
        fit(&["--lambda", "0.01", "--map", "sparse", "--recipe", "sparse"]).succeeded().stdout.contains(" is kept")
    );
    let sparse = std::fs::read(format!("{results}/sparse-states-lambda0.01-seed1.safetensors")).unwrap();
    let sparse = CodecModel::from_bytes(&sparse, 1 << 24).unwrap();
    assert!(
        sparse.synthesis().is_some_and(|map| map.sparse().is_some()) && model.synthesis().unwrap().full().is_some()
    );
    let few = folder.file("few.safetensors", &capture(12));
    let place = ["--results", &results, "--work", &work, "--h-widths", "24,8,4", "--g-y-widths", "4,32,32"];
    midspan(&[&["fit", "--states", &few, "--lambda", "1"], &place[..]].concat())
        .refused(&["12 captured frames: at least 20 are needed"]);
    let ignored = midspan(&[&["fit", "--states", &few, "--lambda", "1", "--samples", "5"], &place[..]].concat());
    assert!(ignored.code == Some(2) && ignored.stderr.contains("--samples"), "{ignored:?}");
    let enough = folder.file("enough.safetensors", &capture(20));
    midspan(&[&["fit", "--states", &enough, "--lambda", "1", "--side-ages", "2"], &place[..]].concat())
        .refused(&["the captured files have no ids"]);
}
