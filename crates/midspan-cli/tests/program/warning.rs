//! The warning that hidden states are unlike those that the codec was made for.

use midspan::model::synthetic::Random;

use crate::support::{Folder, hidden_states, midspan, states_file};

const WARNS: &str = "midspan: warning: the hidden states are unlike those that the codec was made for: ";

/// Prose like the novels that the default model learned from.
const PROSE: &str = "The rain had stopped, and the two of them walked down to the river without a word. He looked back \
    at the house once more, at the dark windows and the open door, and then he shook his head and went on. \"You will \
    not find her there,\" said the old woman at last. \"She went away with the children in the spring, and nobody has \
    heard from them since.\" He did not answer. The boat lay where they had left it, half full of water, and the oars \
    were gone. They stood for a long time and looked at the other side, where a light was moving between the trees. ";

/// Letters and digits as random as those of base64.
pub fn noise(letters: usize) -> String {
    let mut random = Random::new(1);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..letters).map(|_| char::from(alphabet[(random.next() >> 58) as usize])).collect()
}

/// What follows `begins` on the only line of standard error.
fn told(stderr: &str, begins: &str) -> String {
    let told = stderr.strip_prefix(begins).unwrap_or_else(|| panic!("{stderr}"));
    assert_eq!(told.lines().count(), 1, "{stderr}");
    told.to_string()
}

#[test]
fn encode_warns_once_of_noise_in_every_quality_and_names_its_input() {
    let folder = Folder::new();
    let states = folder.file("states.safetensors", &states_file(&hidden_states(600)));
    let out = folder.path("out.msp");
    let begins = WARNS.replace("the hidden states", &format!("{states}: the hidden states"));
    for quality in ["0", "1", "2", "3", "4", "5"] {
        let run = midspan(&["encode", &states, "-o", &out, "--quality", quality, "--batch", "50"]);
        let told = told(&run.stderr, &begins);
        assert!(told.contains(" bits a frame where ") && told.ends_with("0.0 % clamped\n"), "{told}");
        assert!(!run.stdout.contains("unlike"), "{run:?}");
        run.warned().succeeded();
    }
    let short = folder.file("short.safetensors", &states_file(&hidden_states(127)));
    assert_eq!(midspan(&["encode", &short, "-o", &out]).succeeded().stderr, "");
}

#[test]
fn eval_warns_once_of_base64_and_counts_it() {
    let folder = Folder::new();
    let eval = |name: &str, text: &str| {
        let text = folder.file(name, text.as_bytes());
        midspan(&["eval", "--text", &text, "--frames", "300", "--batch", "1,50", "--quality", "all", "--rate-only"])
    };
    let (like, far) = (eval("like.txt", &PROSE.repeat(4)), eval("far.txt", &noise(3_000)));
    told(&far.stderr, &WARNS.replace("the hidden states", "quality 0: the hidden states"));
    let (like, far) = (like.succeeded().json(), far.warned().succeeded().json());
    for batch in 0..2 {
        let of = |report: &serde_json::Value, name: &str| report[0]["batches"][batch][name].as_f64().unwrap();
        assert_eq!((of(&like, "expected_bits"), of(&like, "clipped")), (of(&far, "expected_bits"), 0.0));
        assert!(of(&far, "payload_bits") > 2.0 * of(&far, "expected_bits"), "{far}");
        assert!(of(&far, "most_of_expected") > 2.0 && of(&like, "most_of_expected") < 1.5, "{like}");
        assert!(of(&far, "escaped") > 0.0 && of(&far, "payload_bits") < of(&far, "bits"), "{far}");
        assert_eq!(
            (&like[0]["batches"][batch]["unlike"], &far[0]["batches"][batch]["unlike"]),
            (&false.into(), &true.into())
        );
    }
}

#[test]
fn generate_warns_of_a_prompt_of_base64_on_standard_error_alone() {
    let prompt = noise(200);
    let generate = |prompt: &str, more: &[&str]| midspan(&[&["generate", prompt, "-n", "2"], more].concat());
    let (json, text) = (generate(&prompt, &["--json"]), generate(&prompt, &[]));
    told(&json.stderr, WARNS);
    told(&text.stderr, WARNS);
    assert!(!text.stdout.contains("unlike"), "{text:?}");
    text.warned().succeeded();
    let far = json.warned().succeeded().json();
    let of = |name: &str| far[name].as_f64().unwrap();
    assert!(of("frames") > 128.0 && of("payload_bits") > 1.5 * of("expected_bits"), "{far}");
    assert!(far["escaped"].is_u64(), "{far}");
    let like = generate(&PROSE[..PROSE.len() - 1].repeat(2)[..900], &["--json"]).succeeded();
    assert!(like.json()["frames"].as_u64().unwrap() > 128, "{like:?}");
}
