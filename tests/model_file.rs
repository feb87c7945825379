//! The model file: what is written can be read, and a file that breaks a rule of spec chapter 4 is refused.

#![cfg(feature = "codec")]

use std::collections::BTreeMap;

use midspan::error::ErrorKind;
use midspan::model::synthetic::{self, Style, SyntheticShape};
use midspan::model::{CodecModel, Map, ModelParts};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

const LIMIT: usize = 1 << 24;

/// The tensors of a file, which tests change.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensors =
        file.iter().map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())));
    tensors.collect()
}

fn file(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn tiny() -> Tensors {
    tensors(&synthetic::model(&SyntheticShape::tiny(), 3).to_bytes())
}

/// The kind of error of a changed file, after checking that its offset is that of `tensor`'s data.
fn refused(tensors: &Tensors, tensor: &str) -> ErrorKind {
    let bytes = file(tensors);
    let error = CodecModel::from_bytes(&bytes, LIMIT).expect_err(tensor);
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    if let Some(info) = metadata.info(tensor) {
        let (start, end) = (8 + header + info.data_offsets.0, 8 + header + info.data_offsets.1);
        let offset = error.offset() as usize;
        assert!((start..end.max(start + 1)).contains(&offset), "{tensor}: {error} is not in {start} … {end}");
    }
    error.kind()
}

/// Writes bytes into a tensor's data.
fn set(tensors: &mut Tensors, name: &str, at: usize, bytes: &[u8]) {
    tensors.get_mut(name).unwrap_or_else(|| panic!("{name}")).2[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn a_file_is_read_as_it_was_written() {
    for style in Style::ALL {
        let model = synthetic::model_of(&SyntheticShape::tiny(), style, 5);
        let bytes = model.to_bytes();
        let again = CodecModel::from_bytes(&bytes, LIMIT).unwrap();
        assert_eq!(again.to_bytes(), bytes);
        assert_eq!(again.fingerprint(), model.fingerprint());
        assert_eq!(again.decoder_network(), model.decoder_network());
        assert_eq!(again.encoder_network(), model.encoder_network());
        assert_eq!(again.w_range(), (-64, 64));
        assert_eq!(
            (again.hidden_width(), again.hyper_prior_width(), again.qualities(), again.scales()),
            (20, 6, 2, 40)
        );
        assert_eq!(again.step(1), model.step(1));
        assert_eq!(again.offset(1), model.offset(1));
        assert_eq!(again.reciprocal_step(1), model.reciprocal_step(1));
        assert_eq!(again.hyper_prior().tables(), 12);
        let count: u32 = again.fraction_bits().iter().map(|f| 1 << f).sum();
        assert_eq!(again.target().tables(), count as usize);
        let bases: Vec<u32> = again.target_bases().collect();
        assert_eq!((bases[0], bases[1]), (0, 1 << again.fraction_bits()[0]));
    }
}

/// Spec 4.6, implemented independently over the file's tensors.
#[test]
fn the_fingerprint_is_the_specs() {
    let model = synthetic::model(&SyntheticShape::tiny(), 3);
    let mut hash = Sha256::new();
    hash.update(b"midspan-model-1\n");
    for (name, (dtype, shape, data)) in &tiny() {
        if name.starts_with("decoder.") {
            hash.update((name.len() as u32).to_le_bytes());
            hash.update(name.as_bytes());
            let codes = [Dtype::I8, Dtype::U8, Dtype::I16, Dtype::U16, Dtype::I32, Dtype::I64, Dtype::F32];
            hash.update([codes.iter().position(|code| code == dtype).unwrap() as u8]);
            hash.update((shape.len() as u32).to_le_bytes());
            for &dimension in shape {
                hash.update((dimension as u64).to_le_bytes());
            }
            hash.update(data);
        }
    }
    assert_eq!(model.fingerprint(), <[u8; 32]>::from(hash.finalize()));
}

#[test]
fn an_encoders_part_may_be_absent_and_other_names_are_ignored() {
    let full = synthetic::model(&SyntheticShape::tiny(), 3);
    let mut tensors = tiny();
    tensors.insert("notes".into(), (Dtype::BF16, vec![3], vec![0; 6]));
    tensors.insert("encoder.other".into(), (Dtype::F64, vec![1], vec![0; 8]));
    let model = CodecModel::from_bytes(&file(&tensors), LIMIT).unwrap();
    assert_eq!(model.to_bytes(), full.to_bytes());
    tensors.retain(|name, _| !name.starts_with("encoder.network.") && name != "encoder.quality.reciprocal_step");
    let model = CodecModel::from_bytes(&file(&tensors), LIMIT).unwrap();
    assert!(!model.has_encoder() && model.encoder_network().is_none() && model.reciprocal_step(0).is_none());
    assert_eq!(model.fingerprint(), full.fingerprint());
    assert_eq!(full.without_encoder().to_bytes(), model.to_bytes());
}

/// The rate weight belongs to the encoder's part, has one value for each quality, and may be absent.
#[test]
fn a_rate_weight_is_read_and_judged() {
    const NAME: &str = "encoder.quality.rate_weight";
    let full = synthetic::model(&SyntheticShape::tiny(), 3);
    let with = |shape: Vec<usize>, weights: &[f32]| {
        let mut tensors = tiny();
        tensors.insert(NAME.into(), (Dtype::F32, shape, weights.iter().flat_map(|w| w.to_le_bytes()).collect()));
        tensors
    };
    let model = CodecModel::from_bytes(&file(&with(vec![2], &[0.25, 0.0])), LIMIT).unwrap();
    assert_eq!((model.rate_weight(0), model.rate_weight(1)), (0.25, 0.0));
    assert_eq!(model.fingerprint(), full.fingerprint());
    let again = CodecModel::from_bytes(&model.to_bytes(), LIMIT).unwrap();
    assert_eq!((again.rate_weight(0), again.rate_weight(1)), (0.25, 0.0));
    assert_eq!((full.rate_weight(0), full.rate_weight(1)), (0.0, 0.0), "absent");
    // Weights of 0 are left out, so that equal models give equal bytes.
    let none = CodecModel::from_bytes(&file(&with(vec![2], &[0.0, -0.0])), LIMIT).unwrap();
    assert_eq!(none.to_bytes(), full.to_bytes());
    for wrong in [f32::NAN, f32::INFINITY, -0.5] {
        assert_eq!(refused(&with(vec![2], &[0.0, wrong]), NAME), ErrorKind::ModelValue, "{wrong}");
    }
    assert_eq!(refused(&with(vec![1], &[0.0]), NAME), ErrorKind::ModelTensorShape);
    // Without the rest of the encoder's part its name is ignored.
    let mut tensors = with(vec![1], &[f32::NAN]);
    tensors.retain(|name, _| !name.starts_with("encoder.network.") && name != "encoder.quality.reciprocal_step");
    let model = CodecModel::from_bytes(&file(&tensors), LIMIT).unwrap();
    assert!(!model.has_encoder());
    assert_eq!(model.rate_weight(0), 0.0);
}

/// Length offsets belong to the encoder's part, one for each quality, outside the fingerprint, and may be absent.
#[test]
fn length_offsets_are_read_and_judged() {
    const NAME: &str = "encoder.quality.length_offset";
    let full = synthetic::model(&SyntheticShape::tiny(), 3);
    let with = |shape: Vec<usize>, offsets: &[u16]| {
        let mut tensors = tiny();
        tensors.insert(NAME.into(), (Dtype::U16, shape, offsets.iter().flat_map(|o| o.to_le_bytes()).collect()));
        tensors
    };
    let model = CodecModel::from_bytes(&file(&with(vec![2], &[16_383, 0])), LIMIT).unwrap();
    assert_eq!((model.length_offset(0), model.length_offset(1)), (16_383, 0));
    assert_eq!(model.fingerprint(), full.fingerprint());
    assert_eq!(full.clone().with_length_offsets(vec![16_383, 0]).unwrap().to_bytes(), model.to_bytes());
    let again = CodecModel::from_bytes(&model.to_bytes(), LIMIT).unwrap();
    assert_eq!((again.length_offset(0), again.length_offset(1)), (16_383, 0));
    assert_eq!((full.length_offset(0), full.length_offset(1)), (0, 0), "absent");
    // Offsets of 0 are left out, so that equal models give equal bytes.
    let none = CodecModel::from_bytes(&file(&with(vec![2], &[0, 0])), LIMIT).unwrap();
    assert_eq!(none.to_bytes(), full.to_bytes());
    assert_eq!(refused(&with(vec![2], &[0, 16_384]), NAME), ErrorKind::ModelValue);
    assert_eq!(refused(&with(vec![1], &[0]), NAME), ErrorKind::ModelTensorShape);
    assert_eq!(full.clone().with_length_offsets(vec![0]).unwrap_err().kind, ErrorKind::ModelTensorShape);
    assert_eq!(full.clone().with_length_offsets(vec![0, 16_384]).unwrap_err().kind, ErrorKind::ModelValue);
    // Without the rest of the encoder's part its name is ignored.
    let mut tensors = with(vec![1], &[65_535]);
    tensors.retain(|name, _| !name.starts_with("encoder.network.") && name != "encoder.quality.reciprocal_step");
    let model = CodecModel::from_bytes(&file(&tensors), LIMIT).unwrap();
    assert!(!model.has_encoder());
    assert_eq!(model.length_offset(0), 0);
    assert_eq!(model.with_length_offsets(vec![5, 5]).unwrap().length_offset(0), 0);
}

/// Expected bits belong to the encoder's part, one number for each quality, outside the fingerprint, and may be absent.
#[test]
fn expected_bits_are_read_and_judged() {
    const NAME: &str = "encoder.quality.expected_bits";
    let full = synthetic::model(&SyntheticShape::tiny(), 3);
    let with = |shape: Vec<usize>, bits: &[f32]| {
        let mut tensors = tiny();
        tensors.insert(NAME.into(), (Dtype::F32, shape, bits.iter().flat_map(|b| b.to_le_bytes()).collect()));
        tensors
    };
    let model = CodecModel::from_bytes(&file(&with(vec![2], &[310.5, 0.0])), LIMIT).unwrap();
    assert_eq!((model.expected_bits(0), model.expected_bits(1), model.expected_bits(2)), (Some(310.5), None, None));
    assert_eq!(model.fingerprint(), full.fingerprint());
    assert_eq!(full.clone().with_expected_bits(vec![310.5, 0.0]).unwrap().to_bytes(), model.to_bytes());
    let again = CodecModel::from_bytes(&model.to_bytes(), LIMIT).unwrap();
    assert_eq!((again.expected_bits(0), again.expected_bits(1)), (Some(310.5), None));
    assert_eq!((full.expected_bits(0), full.expected_bits(1)), (None, None), "absent");
    // Bits that nobody knows are left out, so that equal models give equal bytes.
    let none = CodecModel::from_bytes(&file(&with(vec![2], &[0.0, -0.0])), LIMIT).unwrap();
    assert_eq!(none.to_bytes(), full.to_bytes());
    for wrong in [f32::NAN, f32::INFINITY, -1.0] {
        assert_eq!(refused(&with(vec![2], &[0.0, wrong]), NAME), ErrorKind::ModelValue, "{wrong}");
        assert_eq!(full.clone().with_expected_bits(vec![0.0, wrong]).unwrap_err().kind, ErrorKind::ModelValue);
    }
    assert_eq!(refused(&with(vec![1], &[1.0]), NAME), ErrorKind::ModelTensorShape);
    assert_eq!(full.clone().with_expected_bits(vec![1.0]).unwrap_err().kind, ErrorKind::ModelTensorShape);
    // Without the rest of the encoder's part its name is ignored.
    let mut tensors = with(vec![1], &[f32::NAN]);
    tensors.retain(|name, _| !name.starts_with("encoder.network.") && name != "encoder.quality.reciprocal_step");
    let model = CodecModel::from_bytes(&file(&tensors), LIMIT).unwrap();
    assert!(!model.has_encoder());
    assert_eq!(model.expected_bits(0), None);
    assert_eq!(model.with_expected_bits(vec![5.0, 5.0]).unwrap().expected_bits(0), None);
}

/// Linear maps on each side of the quantiser. One belongs to the decoder and is part of the fingerprint, the other
/// belongs to the encoder.
#[test]
fn maps_are_read_and_judged() {
    const SYNTHESIS: &str = "decoder.synthesis";
    const ANALYSIS: &str = "encoder.analysis";
    let mut parts = synthetic::parts(&SyntheticShape::tiny(), Style::Sensible, 3);
    synthetic::add_maps(&mut parts);
    let plain = synthetic::model(&SyntheticShape::tiny(), 3);
    let model = CodecModel::new(parts.clone()).unwrap();
    assert_ne!(model.fingerprint(), plain.fingerprint());
    let again = CodecModel::from_bytes(&model.to_bytes(), LIMIT).unwrap();
    assert_eq!((again.synthesis(), again.analysis()), (parts.synthesis.as_ref(), model.analysis()));
    assert!(again.analysis().is_some() && plain.analysis().is_none() && plain.synthesis().is_none());
    assert_eq!(again.to_bytes(), model.to_bytes());
    let alone = CodecModel::from_bytes(&again.without_encoder().to_bytes(), LIMIT).unwrap();
    assert_eq!((alone.fingerprint(), alone.analysis()), (model.fingerprint(), None));

    let whole = tensors(&model.to_bytes());
    let without = |name: &str| {
        let mut tensors = whole.clone();
        tensors.remove(name);
        tensors
    };
    assert_eq!(refused(&without(SYNTHESIS), SYNTHESIS), ErrorKind::ModelTensorMissing);
    assert_eq!(refused(&without(ANALYSIS), ANALYSIS), ErrorKind::ModelTensorMissing);
    for (element, kind) in
        [(0, ErrorKind::ModelTensorUnknown), (3, ErrorKind::ModelConfig), (-1, ErrorKind::ModelConfig)]
    {
        let mut tensors = whole.clone();
        set(&mut tensors, "decoder.config", 40, &i32::to_le_bytes(element));
        let at = if kind == ErrorKind::ModelConfig { "decoder.config" } else { SYNTHESIS };
        assert_eq!(refused(&tensors, at), kind, "synthesis {element}");
    }
    for name in [SYNTHESIS, ANALYSIS] {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut tensors = whole.clone();
            set(&mut tensors, name, 44, &wrong.to_le_bytes());
            assert_eq!(refused(&tensors, name), ErrorKind::ModelValue, "{name}: {wrong}");
        }
        let mut tensors = whole.clone();
        tensors.get_mut(name).unwrap().1 = vec![10, 40];
        assert_eq!(refused(&tensors, name), ErrorKind::ModelTensorShape, "{name}");
    }
    // Without a synthesis map the name of the other map is ignored.
    let mut tensors = tiny();
    tensors.insert(ANALYSIS.into(), (Dtype::U8, vec![1], vec![0]));
    assert_eq!(CodecModel::from_bytes(&file(&tensors), LIMIT).unwrap().to_bytes(), plain.to_bytes());
    // Parts with a map on only one side.
    let one_side = |change: fn(&mut ModelParts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        CodecModel::new(parts).unwrap_err().kind
    };
    assert_eq!(one_side(|parts| parts.synthesis = None), ErrorKind::ModelTensorMissing);
    assert_eq!(one_side(|parts| parts.encoder.as_mut().unwrap().analysis = None), ErrorKind::ModelTensorMissing);
    assert_eq!(one_side(|parts| parts.synthesis = Some(Map::Full(vec![1.0; 3]))), ErrorKind::ModelTensorShape);
}

/// [SPARSE-1] Sparse causal maps: the rows of both are judged alike.
#[test]
fn sparse_maps_are_read_and_judged() {
    let mut parts = synthetic::parts(&SyntheticShape::tiny(), Style::Sensible, 3);
    synthetic::add_sparse_maps(&mut parts, 1);
    let model = CodecModel::new(parts.clone()).unwrap();
    let again = CodecModel::from_bytes(&model.to_bytes(), LIMIT).unwrap();
    assert_eq!((again.synthesis(), again.analysis()), (parts.synthesis.as_ref(), model.analysis()));
    assert_eq!((again.to_bytes(), again.fingerprint()), (model.to_bytes(), model.fingerprint()));
    let alone = CodecModel::from_bytes(&again.without_encoder().to_bytes(), LIMIT).unwrap();
    assert_eq!((alone.fingerprint(), alone.analysis()), (model.fingerprint(), None));

    let whole = tensors(&model.to_bytes());
    let maps = [("decoder.synthesis", parts.synthesis), ("encoder.analysis", parts.encoder.unwrap().analysis)];
    for (prefix, map) in maps {
        let map = map.as_ref().and_then(Map::sparse).unwrap().clone();
        let [count, index, weight] = ["count", "index", "weight"].map(|name| format!("{prefix}.{name}"));
        for name in [&count, &index, &weight] {
            let mut tensors = whole.clone();
            tensors.remove(name);
            assert_eq!(refused(&tensors, name), ErrorKind::ModelTensorMissing, "{name}");
            let mut tensors = whole.clone();
            let (_, shape, bytes) = tensors.get_mut(name).unwrap();
            let size = bytes.len() / shape[0];
            shape[0] -= 1;
            bytes.truncate(bytes.len() - size);
            assert_eq!(refused(&tensors, name), ErrorKind::ModelTensorShape, "{name}");
        }
        // A row of two entries or more, and where it begins.
        let channel = map.count.iter().position(|count| *count >= 2).unwrap();
        let first: usize = map.count[..channel].iter().map(|count| usize::from(*count)).sum();
        let last = first + usize::from(map.count[channel]) - 1;
        for (at, value) in [(last, channel as u16), (last, u16::MAX), (first, map.index[first + 1])] {
            let mut tensors = whole.clone();
            set(&mut tensors, &index, 2 * at, &value.to_le_bytes());
            assert_eq!(refused(&tensors, &index), ErrorKind::ModelValue, "{index} {at}: {value}");
        }
        for value in [f32::NAN, f32::INFINITY] {
            let mut tensors = whole.clone();
            set(&mut tensors, &weight, 4 * first, &value.to_le_bytes());
            assert_eq!(refused(&tensors, &weight), ErrorKind::ModelValue, "{weight}: {value}");
        }
        let mut tensors = whole.clone();
        set(&mut tensors, &count, 2 * channel, &(map.count[channel] + 1).to_le_bytes());
        assert_eq!(refused(&tensors, &index), ErrorKind::ModelTensorShape, "{count}");
    }
    // A full map beside a sparse one, and maps of two kinds.
    let mut tensors = whole.clone();
    tensors.insert("decoder.synthesis".into(), (Dtype::F32, vec![20, 20], vec![0; 1_600]));
    assert_eq!(refused(&tensors, "decoder.synthesis"), ErrorKind::ModelTensorUnknown);
    let mut parts = synthetic::parts(&SyntheticShape::tiny(), Style::Sensible, 3);
    synthetic::add_maps(&mut parts);
    let full = parts.synthesis.take();
    synthetic::add_sparse_maps(&mut parts, 1);
    assert!(CodecModel::new(parts.clone()).is_ok());
    parts.synthesis = full;
    assert_eq!(CodecModel::new(parts).unwrap_err().kind, ErrorKind::ModelTensorMissing);
}

#[test]
fn missing_unknown_and_misshapen_tensors() {
    let whole = tiny();
    for name in whole.keys() {
        // [MODEL-2]
        let mut tensors = whole.clone();
        tensors.remove(name);
        assert_eq!(refused(&tensors, name), ErrorKind::ModelTensorMissing, "{name}");

        let mut tensors = whole.clone();
        let entry = tensors.get_mut(name).unwrap();
        entry.1.push(1);
        assert_eq!(refused(&tensors, name), ErrorKind::ModelTensorShape, "{name}");

        let mut tensors = whole.clone();
        let entry = tensors.get_mut(name).unwrap();
        (entry.0, entry.1) = (Dtype::BOOL, vec![entry.2.len()]);
        assert_eq!(refused(&tensors, name), ErrorKind::ModelTensorShape, "{name}");

        // One element more along the first dimension.
        let mut tensors = whole.clone();
        let entry = tensors.get_mut(name).unwrap();
        let extra = entry.2.len() / entry.1[0];
        entry.1[0] += 1;
        let more = entry.2[..extra].to_vec();
        entry.2.extend(more);
        // With one more width, a head count is missing.
        let at = if name.ends_with(".widths") { name.replace("widths", "heads") } else { name.clone() };
        assert_eq!(refused(&tensors, &at), ErrorKind::ModelTensorShape, "{name}");
    }
    for name in ["decoder.other", "decoder.network.blocks.2.norm1", "decoder.network.blocks.00.norm1", "decoder."] {
        let mut tensors = whole.clone();
        tensors.insert(name.into(), (Dtype::U8, vec![1], vec![0]));
        assert_eq!(refused(&tensors, name), ErrorKind::ModelTensorUnknown, "{name}");
    }
}

/// A network without blocks has no tensor that only blocks need.
#[test]
fn networks_may_have_no_blocks() {
    let model = synthetic::model(&SyntheticShape::blockless(), 3);
    let whole = tensors(&model.to_bytes());
    let again = CodecModel::from_bytes(&file(&whole), LIMIT).unwrap();
    assert_eq!((again.fingerprint(), again.to_bytes()), (model.fingerprint(), model.to_bytes()));
    assert_eq!(again.decoder_network(), model.decoder_network());
    assert_eq!(again.decoder_network().multiplications(), 6 * 40);
    let (with_blocks, needless) = (tiny(), ["heads", "window", "exp", "activation", "output.norm", "blocks.0.norm1"]);
    for prefix in ["decoder.network.", "encoder.network."] {
        for name in needless.map(|name| format!("{prefix}{name}")) {
            assert!(!whole.contains_key(&name), "{name}");
            let Some(tensor) = with_blocks.get(&name) else { continue };
            let mut tensors = whole.clone();
            tensors.insert(name.clone(), tensor.clone());
            if prefix == "decoder.network." {
                assert_eq!(refused(&tensors, &name), ErrorKind::ModelTensorUnknown, "{name}");
            } else {
                // All other names under `encoder.` are ignored.
                assert!(CodecModel::from_bytes(&file(&tensors), LIMIT).is_ok(), "{name}");
            }
        }
        let name = format!("{prefix}widths");
        let mut tensors = whole.clone();
        *tensors.get_mut(&name).unwrap() = (Dtype::I32, vec![0], Vec::new());
        assert_eq!(refused(&tensors, &name), ErrorKind::ModelTensorShape, "{name}");
    }
    let refused = |change: fn(&mut ModelParts)| {
        let mut parts = synthetic::parts(&SyntheticShape::blockless(), Style::Sensible, 3);
        change(&mut parts);
        CodecModel::new(parts).unwrap_err().kind
    };
    assert_eq!(refused(|p| p.decoder_network.output_norm = Some(1)), ErrorKind::ModelTensorUnknown);
    assert_eq!(refused(|p| p.decoder_network.window = 2), ErrorKind::ModelTensorUnknown);
    assert_eq!(refused(|p| p.decoder_network.exp = vec![4_095; 1_024]), ErrorKind::ModelTensorUnknown);
    assert_eq!(refused(|p| p.encoder.as_mut().unwrap().network.activation = vec![0]), ErrorKind::ModelTensorUnknown);
    assert_eq!(refused(|p| p.decoder_network.heads = vec![1]), ErrorKind::ModelTensorShape);
}

#[test]
fn values_out_of_range() {
    let int = |x: i32| x.to_le_bytes().to_vec();
    let wide = |x: i64| x.to_le_bytes().to_vec();
    let float = |x: f32| x.to_le_bytes().to_vec();
    let mut cases: Vec<(String, usize, Vec<u8>, ErrorKind)> = Vec::new();
    // [MODEL-3]
    for (element, value) in [
        (0, 0),
        (0, 2),
        (1, -1),
        (2, 0),
        (2, 65_537),
        (3, 0),
        (3, 4_097),
        (4, 0),
        (4, 257),
        (5, 1),
        (5, -32_768),
        (6, -1),
        (6, 32_768),
        (7, 1),
        (8, 40_000),
        (9, 0),
        (9, 257),
        (10, 3),
        (11, 8_192),
        (11, -1),
    ] {
        cases.push(("decoder.config".into(), 4 * element, int(value), ErrorKind::ModelConfig));
    }
    for prefix in ["decoder.network.", "encoder.network."] {
        let at = |name: &str| format!("{prefix}{name}");
        // [MODEL-5]
        cases.extend([
            (at("widths"), 0, int(7), ErrorKind::ModelConfig),
            (at("exp"), 0, vec![0xFE, 0x0F], ErrorKind::ModelValue),
            (at("exp"), 6, vec![0, 0x10], ErrorKind::ModelValue),
            (at("activation"), 10, vec![0, 0x80], ErrorKind::ModelValue),
            (at("input.multiplier"), 4, int(-1), ErrorKind::ModelValue),
            (at("input.multiplier"), 4, int(32_768), ErrorKind::ModelValue),
            (at("input.shift"), 1, vec![0], ErrorKind::ModelValue),
            (at("input.shift"), 1, vec![47], ErrorKind::ModelValue),
            (at("blocks.1.norm1"), 0, wide(0), ErrorKind::ModelValue),
            (at("blocks.0.norm2"), 0, wide((1 << 46) + 1), ErrorKind::ModelValue),
            (at("blocks.1.norm2"), 0, wide(-1), ErrorKind::ModelValue),
            (at("blocks.0.score.multiplier"), 0, int(32_768), ErrorKind::ModelValue),
            (at("blocks.1.score.shift"), 1, vec![0], ErrorKind::ModelValue),
            (at("blocks.1.position"), 8, int((1 << 20) + 1), ErrorKind::ModelValue),
            (at("blocks.1.position"), 8, int(i32::MIN), ErrorKind::ModelValue),
            (at("output.offset"), 4, int(-(1 << 20) - 1), ErrorKind::ModelValue),
        ]);
        for layer in [
            "blocks.0.q",
            "blocks.1.k",
            "blocks.0.v",
            "blocks.1.o",
            "blocks.0.proj",
            "blocks.1.up",
            "blocks.0.down",
            "output",
        ] {
            let at = |part: &str| at(&format!("{layer}.{part}"));
            cases.extend([
                (at("weight"), 1, vec![0x80], ErrorKind::ModelValue),
                (at("multiplier"), 4, int(32_768), ErrorKind::ModelValue),
                (at("multiplier"), 4, int(-1), ErrorKind::ModelValue),
                (at("shift"), 1, vec![0], ErrorKind::ModelValue),
                (at("shift"), 1, vec![47], ErrorKind::ModelValue),
            ]);
        }
    }
    cases.push(("decoder.network.output.norm".into(), 0, wide(0), ErrorKind::ModelValue));
    cases.push(("decoder.target.fraction_bits".into(), 2, vec![7], ErrorKind::ModelValue));
    // [MODEL-10]
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        cases.push(("decoder.quality.step".into(), 4, float(value), ErrorKind::ModelValue));
        cases.push(("decoder.quality.offset".into(), 4, float(value), ErrorKind::ModelValue));
        cases.push(("encoder.quality.reciprocal_step".into(), 4, float(value), ErrorKind::ModelValue));
    }
    for value in [0.0, -0.0, -1.0] {
        cases.push(("decoder.quality.step".into(), 4, float(value), ErrorKind::ModelValue));
        cases.push(("encoder.quality.reciprocal_step".into(), 4, float(value), ErrorKind::ModelValue));
    }
    // [MODEL-6], [MODEL-8], [MODEL-9]
    cases.extend([
        ("decoder.hyper_prior.first".into(), 0, int(-65), ErrorKind::ModelTable),
        ("decoder.hyper_prior.first".into(), 4, int(64), ErrorKind::ModelTable),
        ("decoder.hyper_prior.first".into(), 4, int(i32::MAX), ErrorKind::ModelTable),
        ("decoder.target.first".into(), 0, int(1), ErrorKind::ModelTable),
        ("decoder.target.first".into(), 4, int(-100), ErrorKind::ModelTable),
        ("decoder.target.first".into(), 4, int(i32::MIN), ErrorKind::ModelTable),
        ("decoder.hyper_prior.size".into(), 0, vec![0, 0], ErrorKind::ModelValue),
        ("decoder.target.size".into(), 2, vec![1, 16], ErrorKind::ModelValue),
        ("decoder.hyper_prior.boundaries".into(), 0, vec![0, 0], ErrorKind::ModelTable),
        ("decoder.target.boundaries".into(), 2, vec![0, 0], ErrorKind::ModelTable),
    ]);
    let whole = tiny();
    for (name, at, bytes, kind) in cases {
        let mut tensors = whole.clone();
        set(&mut tensors, &name, at, &bytes);
        assert_eq!(refused(&tensors, &name), kind, "{name} at {at}: {bytes:?}");
    }
    // A size that grows leaves the boundaries too short.
    let mut tensors = whole.clone();
    let size = tensors["decoder.hyper_prior.size"].2[0];
    set(&mut tensors, "decoder.hyper_prior.size", 0, &[size - 1]);
    assert_eq!(refused(&tensors, "decoder.hyper_prior.boundaries"), ErrorKind::ModelTensorShape);
}

/// The error for changed parts. Used if a file's shapes would have to change too.
fn refused_parts(change: impl FnOnce(&mut ModelParts)) -> ErrorKind {
    let mut parts = synthetic::parts(&SyntheticShape::tiny(), Style::Sensible, 3);
    change(&mut parts);
    CodecModel::new(parts).unwrap_err().kind
}

#[test]
fn networks_that_do_not_fit() {
    use ErrorKind::{ModelConfig, ModelTensorMissing, ModelTensorShape, ModelTensorUnknown, ModelValue};
    assert_eq!(refused_parts(|p| p.decoder_network.heads[0] = 4), ModelConfig);
    assert_eq!(refused_parts(|p| p.decoder_network.heads[0] = 0), ModelConfig);
    assert_eq!(refused_parts(|p| p.decoder_network.widths[1] = 8_193), ModelValue);
    assert_eq!(refused_parts(|p| p.decoder_network.window = 0), ModelValue);
    assert_eq!(refused_parts(|p| p.decoder_network.window = 4_097), ModelValue);
    assert_eq!(refused_parts(|p| p.decoder_network.window = 9), ModelTensorShape);
    assert_eq!(refused_parts(|p| p.decoder_network.output_norm = None), ModelTensorMissing);
    assert_eq!(refused_parts(|p| p.encoder.as_mut().unwrap().network.output_norm = Some(1)), ModelTensorUnknown);
    assert_eq!(refused_parts(|p| p.decoder_network.blocks.truncate(1)), ModelTensorShape);
    assert_eq!(refused_parts(|p| p.decoder_network.blocks[0].q.bias.push(0)), ModelTensorShape);
    assert_eq!(refused_parts(|p| p.w_range = (0, 0)), ModelConfig);
    assert_eq!(refused_parts(|p| p.c = 7), ModelConfig);
    assert_eq!(refused_parts(|p| p.version = 1 << 31), ModelConfig);
    assert_eq!(refused_parts(|p| p.step.truncate(1)), ModelTensorShape);
    assert_eq!(refused_parts(|p| p.target.size.truncate(1)), ModelTensorShape);
}

/// [MODEL-4]: the largest row that is allowed, and one more in a weight or in the bias.
#[test]
fn the_row_bound_is_exact() {
    let bound = |weights: &[i8], bias: i32| {
        let mut parts =
            synthetic::parts(&SyntheticShape { h: vec![12, 600], ..SyntheticShape::tiny() }, Style::Sensible, 3);
        let layer = &mut parts.encoder.as_mut().unwrap().network.blocks[1].down;
        layer.weight[2_400..][..weights.len()].copy_from_slice(weights);
        layer.bias[1] = bias;
        CodecModel::new(parts).map(|_| ()).map_err(|error| error.kind)
    };
    // 516 · 127 + 3 = 65,535.
    let mut row = vec![0i8; 2_400];
    row[..516].fill(-127);
    row[516] = 3;
    assert_eq!(bound(&row, 0), Ok(()));
    assert_eq!(bound(&row, 1), Err(ErrorKind::ModelRowBound));
    assert_eq!(bound(&row, -1), Err(ErrorKind::ModelRowBound));
    row[517] = 1;
    assert_eq!(bound(&row, 0), Err(ErrorKind::ModelRowBound));
    row[516] = 2;
    row[517] = 0;
    assert_eq!(bound(&row, 32_767), Ok(()));
    assert_eq!(bound(&row, -32_767), Ok(()));
    assert_eq!(bound(&row, -32_768), Err(ErrorKind::ModelRowBound));
    assert_eq!(bound(&[0; 2_400], i32::MIN), Err(ErrorKind::ModelRowBound));
    assert_eq!(bound(&[0; 2_400], 2_147_385_345), Ok(()));
}

#[test]
fn too_many_tables() {
    // [MODEL-7]: 256 qualities of 257 channels are 65,792 tables.
    let shape = SyntheticShape {
        hidden: 1,
        hyper_prior: 257,
        g_y: vec![1],
        h: vec![1],
        heads: 1,
        window: 1,
        qualities: 256,
        scales: 1,
        side: [0; 3],
    };
    let parts = synthetic::parts(&shape, Style::Sensible, 1);
    assert_eq!(CodecModel::new(parts).unwrap_err().kind, ErrorKind::ModelConfig);
}

#[test]
fn limits_and_malformed_files() {
    let bytes = synthetic::model(&SyntheticShape::tiny(), 3).to_bytes();
    let kind = |bytes: &[u8], limit| CodecModel::from_bytes(bytes, limit).unwrap_err().kind();
    // [MODEL-1]; that the bound holds is a test in codec_memory.rs.
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let values = 1 + bytes[8..8 + header].iter().filter(|byte| b"{[,:".contains(byte)).count();
    let needed = bytes.len() + 4 * header + 128 * values;
    assert_eq!(kind(&bytes, needed - 1), ErrorKind::MemoryLimit);
    assert!(CodecModel::from_bytes(&bytes, needed).is_ok());
    assert_eq!(kind(&[], LIMIT), ErrorKind::ModelFileSyntax);
    assert_eq!(kind(&[0xFF; 8], LIMIT), ErrorKind::ModelFileSyntax);
    for length in (0..bytes.len()).step_by(97) {
        assert_eq!(kind(&bytes[..length], LIMIT), ErrorKind::ModelFileSyntax);
    }
    assert_eq!(kind(&[bytes.as_slice(), &[0]].concat(), LIMIT), ErrorKind::ModelFileSyntax);
    assert_eq!(kind(b"\x02\0\0\0\0\0\0\0{}", LIMIT), ErrorKind::ModelTensorMissing);
}

/// Whatever value a byte of the file gets, the loader returns, and a model that it accepts is valid.
#[test]
fn changed_bytes_never_panic() {
    let bytes = synthetic::model(
        &SyntheticShape {
            hidden: 3,
            hyper_prior: 2,
            g_y: vec![2],
            h: vec![2],
            heads: 1,
            window: 2,
            qualities: 1,
            scales: 1,
            side: [0; 3],
        },
        3,
    )
    .to_bytes();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in (0..8 + header).chain((8 + header..bytes.len()).step_by(11)) {
        for flip in [1, 0x80, 0xFF] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            if let Ok(model) = CodecModel::from_bytes(&bytes, LIMIT) {
                assert!(model.decoder_network().validate().is_ok());
                assert!(model.encoder_network().is_none_or(|network| network.validate().is_ok()));
            }
        }
    }
}

/// The model of the documentation's examples, read from a file as a user's is. `EXAMPLE=write` writes it.
#[test]
fn the_examples_model_is_a_synthetic_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/example.safetensors");
    let bytes = synthetic::model(&SyntheticShape::tiny(), 1).to_bytes();
    if std::env::var_os("EXAMPLE").is_some_and(|what| what == "write") {
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(std::fs::read(path).unwrap() == bytes);
}
