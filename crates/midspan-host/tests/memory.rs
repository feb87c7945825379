//! Files of hosts that state more than they contain are refused before memory is allocated for it.

use candle_core::Device;
use midspan_host::gpt::Config;
use midspan_host::llama::Llama;
use midspan_host::llama_tokenizer::LlamaTokenizer;
use midspan_host::weights;
use midspan_testkit::allocator::measured;

fn small() -> Config {
    Config::default().vocab(30).width(8).layers(2).heads(2).split(1).context(8)
}

/// The bytes of a valid file.
fn good() -> Vec<u8> {
    let mut next = 0;
    let weights = small()
        .init(&mut || {
            next = (next * 7 + 3) % 101;
            next as f32 / 50.0 - 1.0
        })
        .unwrap();
    weights::serialize(&small(), &weights).unwrap()
}

/// A safetensors file with a header and some data.
fn file(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), data].concat()
}

/// A file without tensors that states its model's shape.
fn of_shape(shape: &str) -> Vec<u8> {
    file(&format!(r#"{{"__metadata__":{{"host":"{}"}}}}"#, shape.replace('"', r#"\""#)), &[])
}

/// The valid file after a change in its statement of the model's shape.
fn saying(old: &str, new: &str) -> Vec<u8> {
    let bytes = good();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json = std::str::from_utf8(&bytes[8..8 + header]).unwrap();
    let (old, new) = (old.replace('"', r#"\""#), new.replace('"', r#"\""#));
    assert!(json.contains(&old), "{json}");
    file(&json.replace(&old, &new), &bytes[8 + header..])
}

#[test]
fn hostile_host_files_are_refused_before_memory_is_set_aside() {
    assert!(weights::load(&good(), &Device::Cpu).is_ok());
    let shape = r#"{"vocab":30,"width":8,"layers":2,"heads":2,"split":1,"context":8}"#;
    let mut files = vec![of_shape(shape)];
    for (old, new) in [
        (r#""layers":2"#, r#""layers":10000000000"#),
        (r#""layers":2"#, r#""layers":1000000"#),
        (r#""layers":2"#, r#""layers":0"#),
        (r#""context":8"#, r#""context":1099511627776"#),
        (r#""context":8"#, r#""context":18446744073709551615"#),
        (r#""context":8"#, r#""context":0"#),
        (r#""vocab":30"#, r#""vocab":18446744073709551615"#),
        (r#""vocab":30"#, r#""vocab":16777216"#),
        (r#""vocab":30"#, r#""vocab":0"#),
        (r#""width":8"#, r#""width":0"#),
        (r#""width":8"#, r#""width":9223372036854775808"#),
        (r#""width":8"#, r#""width":16777216"#),
        (r#""heads":2"#, r#""heads":0"#),
        (r#""heads":2"#, r#""heads":9223372036854775808"#),
        (r#""heads":2"#, r#""heads":3"#),
        (r#""split":1"#, r#""split":3"#),
    ] {
        files.push(of_shape(&shape.replace(old, new)));
        files.push(saying(old, new));
    }
    // A shape of two hundred thousand dimensions.
    let dimensions = vec!["1"; 200_000].join(",");
    files.push(file(&format!(r#"{{"a":{{"dtype":"U8","shape":[{dimensions}],"data_offsets":[0,1]}}}}"#), &[0]));
    for bytes in &files {
        let (outcome, held, peak) = measured(|| weights::load(bytes, &Device::Cpu).map(drop));
        let line = outcome.expect_err("refused").to_string();
        // The memory for a valid file of this size is in proportion to it.
        let most = 20 * bytes.len() + 100_000;
        assert!(held < 10_000 && peak < most, "{line}: {peak} bytes for {}", bytes.len());
    }
    // A very large context alone takes no memory.
    let (gpt, held, _) = measured(|| weights::load(&saying(r#""context":8"#, r#""context":16777216"#), &Device::Cpu));
    assert!(gpt.is_ok() && held < 200_000, "{held}");

    // The seven numbers of llama2.c's header, and nothing after them.
    for fields in [
        [1 << 20, 1 << 20, 1 << 20, 1, 1, 1 << 20, 1 << 20],
        [1 << 20, 1, 2, 1, 1, -(1 << 20), 1 << 20],
        [2, 1, 1 << 20, 1, 1, 1, 1],
        [i32::MAX; 7],
        [i32::MIN; 7],
        [0; 7],
    ] {
        let bytes: Vec<u8> = fields.iter().flat_map(|field: &i32| field.to_le_bytes()).collect();
        let (outcome, _, peak) = measured(|| Llama::from_bytes(&bytes, 1).map(drop));
        assert!(outcome.is_err() && peak < 10_000, "{fields:?}: {peak}");
    }
    // A tokenizer that should have many pieces but has none.
    let (outcome, _, peak) = measured(|| LlamaTokenizer::from_bytes(&[0; 16], usize::MAX).map(drop));
    assert!(outcome.is_err() && peak < 10_000, "{peak}");
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let bytes = good();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json = std::str::from_utf8(&bytes[8..8 + header]).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(json).unwrap();
    // Change every float of the file in turn: scales of rows, and gains.
    let (mut scales, mut gains) = (0, 0);
    for (name, tensor) in parsed.as_object().unwrap().iter().filter(|(_, tensor)| tensor["dtype"] == "F32") {
        let [start, end] = [0, 1].map(|i| tensor["data_offsets"][i].as_u64().unwrap() as usize + 8 + header);
        *if name.ends_with(".scale") { &mut scales } else { &mut gains } += (end - start) / 4;
        for at in (start..end).step_by(4) {
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut bytes = bytes.clone();
                bytes[at..at + 4].copy_from_slice(&odd.to_le_bytes());
                let error = weights::load(&bytes, &Device::Cpu).map(drop).expect_err(name).to_string();
                assert!(error.contains("not finite"), "{name}: {error}");
            }
        }
    }
    assert!(scales >= 30 && gains >= 8, "{scales} scales, {gains} gains");
    // The scale is finite, but 127 · scale overflows to an infinite weight.
    let at = parsed["embed.weight.scale"]["data_offsets"][0].as_u64().unwrap() as usize + 8 + header;
    let mut large = bytes;
    large[at..at + 4].copy_from_slice(&f32::MAX.to_le_bytes());
    assert!(weights::load(&large, &Device::Cpu).unwrap_err().to_string().contains("not finite"));
}
