//! `selftest`: a table or JSON of checks, and refusals.

use midspan::model::synthetic::{self, SyntheticShape};

use crate::support::{Folder, midspan};

#[test]
fn every_check_is_in_the_report() {
    let folder = Folder::new();
    let model = folder.file("tiny.safetensors", &synthetic::model(&SyntheticShape::tiny(), 1).to_bytes());
    let arguments = ["selftest", "--model", &model, "--networks", "5"];
    let json = midspan(&[&arguments[..], &["--json"]].concat()).succeeded().json();
    assert_eq!((&json["exact"], &json["device"]), (&true.into(), &"cpu".into()));
    let rows = json["rows"].as_array().unwrap();
    assert!(rows.len() >= 8 && rows.len().is_multiple_of(4), "{rows:?}");
    for row in rows {
        assert!(row["fault"].is_null() && row["compared"].as_u64().unwrap() > 100, "{row}");
    }
    let table = midspan(&arguments).succeeded().stdout;
    assert_eq!(table.lines().filter(|line| line.ends_with("  exact")).count(), rows.len(), "{table}");
}

#[test]
fn devices_that_are_not_there_are_refused() {
    let folder = Folder::new();
    let model = synthetic::model(&SyntheticShape::tiny(), 1);
    let decoder_only = folder.file("decoder.safetensors", &model.without_encoder().to_bytes());
    midspan(&["selftest", "--device", "tpu"]).refused(&["--device tpu", "cpu, cuda, cuda:1 or metal"]);
    midspan(&["selftest", "--device", "cuda:x"]).refused(&["--device cuda:x"]);
    midspan(&["selftest", "--device", "cuda:99"]).refused(&["--device cuda:99"]);
    midspan(&["selftest", "--device", "metal"]).refused(&["--device metal"]);
    midspan(&["selftest", "--model", &decoder_only]).refused(&["no encoder's part"]);
}
