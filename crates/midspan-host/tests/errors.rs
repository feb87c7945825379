//! What a caller gets for wrong files and settings: the variant, and a text that tells every cause once.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use midspan_host::gpt::{Config, Gpt};
use midspan_host::llama::Llama;
use midspan_host::llama_tokenizer::LlamaTokenizer;
use midspan_host::tokenizer::Tokenizer;
use midspan_host::{Error, weights};
use midspan_testkit::errors::line;
use midspan_testkit::program::Folder;

/// The error of a call that has to fail, with the text that a user reads.
#[track_caller]
fn refused<T>(result: Result<T, Error>) -> (Error, String) {
    let error = result.map(|_| ()).expect_err("refused");
    let line = line(&error);
    (error, line)
}

fn small() -> Config {
    Config::default().vocab(30).width(8).layers(2).heads(2).split(1).context(8)
}

/// A safetensors file with a header and no data.
fn file(json: &str) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

/// The seven numbers of llama2.c's header, then `floats` values.
fn llama(fields: [i32; 7], floats: usize, value: f32) -> Vec<u8> {
    let fields = fields.into_iter().flat_map(i32::to_le_bytes);
    fields.chain(std::iter::repeat_n(value.to_le_bytes(), floats).flatten()).collect()
}

#[test]
fn settings_are_named_with_what_is_wanted() {
    let vb = || VarBuilder::zeros(DType::F32, &Device::Cpu);
    let refused = |cfg: Config| refused(Gpt::new(cfg, vb()));
    let (error, line) = refused(small().heads(3));
    assert!(matches!(error, Error::Setting { name: "the width", value: 8, .. }), "{error:?}");
    assert_eq!(line, "the width must be a multiple of twice the heads, 6, not 8");
    let (error, line) = refused(small().split(5));
    assert!(matches!(error, Error::Setting { name: "the split", value: 5, .. }), "{error:?}");
    assert_eq!(line, "the split must be at most the number of blocks, 2, not 5");
    let (_, line) = refused(small().context(1));
    assert_eq!(line, "the context must be 2 to 16777216, not 1");
    for wrong in [small().vocab(0), small().width(0), small().layers(1 << 25), small().heads(0)] {
        assert!(matches!(refused(wrong).0, Error::Setting { .. }));
    }
}

#[test]
fn host_files_say_what_is_wrong_with_them() {
    let load = |bytes: &[u8]| refused(weights::load(bytes, &Device::Cpu));
    assert!(matches!(load(b"none").0, Error::Safetensors(_)));
    // The library's text contains its cause, so the chain has no more of it.
    let (error, line) = load(&file("{"));
    assert!(matches!(error, Error::Safetensors(_)) && line.matches("EOF while parsing").count() == 1, "{line}");
    assert!(matches!(load(&file("{}")).0, Error::NoShape));
    let (error, line) = load(&file(r#"{"__metadata__":{"host":"{\"vocab\":30}"}}"#));
    assert!(matches!(error, Error::Shape(_)), "{error:?}");
    assert!(line.starts_with("host file: its shape cannot be read: missing field `width`"), "{line}");
    let shape = r#"{\"vocab\":30,\"width\":8,\"layers\":2,\"heads\":2,\"split\":1,\"context\":8}"#;
    let (error, line) = load(&file(&format!(r#"{{"__metadata__":{{"host":"{shape}"}}}}"#)));
    assert!(matches!(error, Error::Truncated { within: "weights" }), "{error:?}");
    assert_eq!(line, "the file ends within its weights");
    let (error, _) = load(&file(&format!(r#"{{"__metadata__":{{"host":"{}"}}}}"#, shape.replace("30", "0"))));
    assert!(matches!(error, Error::Setting { name: "the vocabulary", value: 0, .. }), "{error:?}");
}

#[test]
fn weights_that_do_not_fit_the_shape_are_named() {
    let weights = small().init(&mut || 0.5).unwrap();
    let save = |name: &str, tensor: Option<Tensor>| {
        let mut weights = weights.clone();
        weights.remove(name);
        weights.extend(tensor.map(|tensor| (name.to_string(), tensor)));
        refused(weights::serialize(&small(), &weights))
    };
    let (error, line) = save("blocks.1.q.weight", None);
    assert!(matches!(error, Error::NoTensor { name } if name == "blocks.1.q.weight"), "{line}");
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let (error, line) = save("final_norm.gain", Some(zeros(&[4])));
    assert!(matches!(error, Error::TensorShape { found, wanted, .. } if found == [4] && wanted == [8]), "{line}");
    assert_eq!(line, "final_norm.gain is [4], not [8]");
    let (error, line) = save("final_norm.gain", Some((zeros(&[8]) / 0.0).unwrap()));
    assert!(matches!(error, Error::NotFinite { name: Some(name) } if name == "final_norm.gain"), "{line}");
}

#[test]
fn llama_files_say_what_is_wrong_with_them() {
    let fields = [8, 8, 2, 2, 2, 4, 4];
    let load = |fields, floats, value, split| refused(Llama::from_bytes(&llama(fields, floats, value), split));
    let (error, line) = refused(Llama::from_bytes(&[0; 27], 1));
    assert!(matches!(error, Error::Truncated { .. }) && line == "the file ends within its llama2.c header");
    assert!(matches!(load([0; 7], 0, 0.0, 1).0, Error::LlamaHeader { fields: [0, ..], .. }));
    let (error, line) = load([8, 8, 2, 3, 3, 4, 4], 0, 0.0, 1);
    assert!(matches!(error, Error::LlamaHeader { .. }) && line.contains("[8, 8, 2, 3, 3, 4, 4]"), "{line}");
    let (error, line) = load(fields, 5_000, 1.0, 2);
    assert!(matches!(error, Error::Split { split: 2, blocks: 2 }), "{error:?}");
    assert_eq!(line, "a model of 2 blocks cannot be split after 2");
    assert!(matches!(load(fields, 20, 1.0, 1).0, Error::Truncated { within: "weights" }));
    assert!(matches!(load(fields, 5_000, f32::NAN, 1).0, Error::NotFinite { name: None }));
}

#[test]
fn pieces_that_are_wrong_are_counted() {
    let load = |bytes: &[u8], vocab| refused(LlamaTokenizer::from_bytes(bytes, vocab));
    assert!(matches!(load(&[0; 3], 300).0, Error::Truncated { within: "pieces" }));
    let mut long = vec![0; 20];
    long[8..12].copy_from_slice(&2_000_i32.to_le_bytes());
    let (error, line) = load(&long, 300);
    assert!(matches!(error, Error::PieceLength { token: 0, found: 2_000, most: 1_024 }), "{error:?}");
    assert_eq!(line, "piece 0 has a length of 2000, not of 0 to 1024");
    assert!(matches!(load(&[0; 4 + 8 * 258], 258).0, Error::NoByteTokens { vocab: 258 }));
    assert!(matches!(load(&[0; 4 + 8 * 260], 259).0, Error::ManyPieces { vocab: 259 }));
}

#[test]
fn files_are_named_once() {
    let folder = Folder::new();
    let (missing, text) = (folder.path("missing"), folder.file("text.json", b"{}"));
    let path = |path: &str| PathBuf::from(path);
    for (error, line) in [
        refused(Tokenizer::load(&path(&missing)).map(drop)),
        refused(LlamaTokenizer::load(&path(&missing), 300).map(drop)),
    ] {
        assert!(matches!(&error, Error::Read { path, .. } if path.ends_with("missing")), "{error:?}");
        assert!(line.starts_with(&format!("{missing}: No such file")) || cfg!(not(unix)), "{line}");
        assert_eq!(line.matches("missing").count(), 1, "{line}");
    }
    let (error, line) = refused(LlamaTokenizer::load(&path(&text), 300));
    let Error::In { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**source, Error::Truncated { within: "pieces" }), "{error:?}");
    assert_eq!(line, format!("{text}: the file ends within its pieces"));
    let (error, line) = refused(Tokenizer::load(&path(&text)));
    let Error::In { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**source, Error::Tokenizer { .. }), "{error:?}");
    assert!(line.starts_with(&format!("{text}: tokenizer: no description of one: ")), "{line}");
}

#[test]
fn a_tokenizer_of_another_kind_is_refused() {
    let json = Tokenizer::train(std::iter::once("some text"), 280).unwrap().to_json().unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    json["decoder"] = serde_json::Value::Null;
    let (error, line) = refused(Tokenizer::from_json(json.to_string().as_bytes()));
    assert!(matches!(error, Error::NotByteLevel) && line.starts_with("tokenizer: "), "{line}");
}

#[test]
fn tensors_tell_their_own_story() {
    let (error, line) =
        refused(Gpt::new(small(), VarBuilder::from_tensors(Default::default(), DType::F32, &Device::Cpu)));
    assert!(matches!(error, Error::Tensor(_)) && line.contains("cannot find tensor"), "{line}");
}
