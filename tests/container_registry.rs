//! The numbers that this library writes and knows are those that the specification assigns (spec chapter 9).
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::collections::BTreeSet;

use bytes::BytesMut;
use midspan::error::ErrorKind;
use midspan::stream::{Binding, Writer};
use midspan::wire::{CheckWidth, Dtype, Extension, Identity, Mode, OptionalField, StreamHeader, kind};

/// A file with every chunk that a writer writes; the header has every field.
fn everything(mode: Mode) -> (StreamHeader, Vec<u8>) {
    let mut header = StreamHeader {
        mode,
        check: CheckWidth::Two,
        file: true,
        host_digest: Some([8; 32]),
        max_rewind: 9,
        target_horizon: (mode == Mode::Layered).then_some(9),
        identity: Identity::new(*b"registry"),
        ..StreamHeader::new([7; 32])
    };
    header.set_optional(OptionalField::PRODUCER, &b"tests"[..]);
    header.set_optional(OptionalField::grease_id(2).unwrap(), &b"grease"[..]);
    let mut writer = Writer::new(header.clone(), Binding::ByteStream).unwrap();
    writer.frame(b"one").unwrap();
    writer.frame(&[1; 200]).unwrap();
    writer.frame(&[1; 17_000]).unwrap();
    writer.batch(3, &[b"a", b"b"]).unwrap();
    if mode == Mode::Layered {
        writer.target(0, 1, &[b"y"]).unwrap();
        writer.target(3, 3, &[b"y"]).unwrap();
    }
    writer.checkpoint(1, 2).unwrap();
    writer.rewind(4).unwrap();
    writer.quality(1, 0).unwrap();
    writer.exact_frame(Dtype::F16, b"w and y", &[0; 4]).unwrap();
    writer.reset(0, 0, 1, 2).unwrap();
    writer.model_switch([9; 32], 1, 0, 0, 1, 2).unwrap();
    writer.extension(Extension::grease_id(4).unwrap(), b"grease").unwrap();
    writer.end(1, 2).unwrap();
    (header, writer.take().unwrap().to_vec())
}

/// [REG-1] A writer MUST NOT use a number that is neither assigned nor for private use, save grease.
/// [VER-1] Minimum reader version: by what the stream uses, not by what the writer knows.
#[test]
fn a_writer_uses_assigned_numbers_alone() {
    let mut kinds = BTreeSet::new();
    for mode in [Mode::Joined, Mode::Layered] {
        let (header, stream) = everything(mode);
        assert_eq!(stream[4..6], [1, 1], "format version, minimum reader version");
        let (read, bytes) = StreamHeader::load(&stream, Some(Binding::ByteStream)).unwrap().unwrap();
        let ids: Vec<u32> = read.optional.iter().map(|field| field.id).collect();
        assert!(ids.iter().all(|id| *id <= 2 || id % 62 == 40), "{ids:?}");
        let mut rest = &stream[bytes..stream.len() - 12];
        while let Some(leading) = rest.first() {
            let length = kind::load_length(rest, 0, u32::MAX).unwrap().unwrap();
            kinds.insert(if *leading < 0xc0 { 0xc0 } else { *leading });
            rest = &rest[length.head + length.body..];
        }
        // A writer of a later edition still states the version that the stream needs.
        let mut later = BytesMut::new();
        StreamHeader { format_version: 9, ..header }.encode(&mut later).unwrap();
        assert_eq!(later[4..6], [9, 1]);
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (0xc0..=0xcb).chain([0xe0]).collect::<Vec<_>>());
}

/// The numbers of the table in spec 7.3.
fn numbers() -> Vec<u16> {
    let text = include_str!("../spec/07-limits-errors.md");
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |")?.0.parse().ok())
        .filter(|n| *n > 100)
        .collect()
}

/// [ERR-5] Further errors have numbers in the 800s and 900s; the numbers of the table keep their meaning. Numbers that
/// concern only an implementation are for private use (spec 9.2).
#[test]
fn error_numbers_are_the_specifications() {
    let table = numbers();
    assert!(table.len() > 60 && table.windows(2).all(|pair| pair[0] < pair[1]));
    for number in &table {
        assert!(ErrorKind::from_code(*number).is_some(), "{number} has no kind");
    }
    for kind in ErrorKind::ALL {
        let private = matches!(kind.code(), 850..=899 | 950..=999);
        assert!(table.contains(&kind.code()) || private, "{kind:?} is neither in the table nor for private use");
    }
}
