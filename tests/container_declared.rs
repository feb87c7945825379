//! Declared values cost no memory before the data comes, and readers with small limits read what every reader must read
//! (spec 7).
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, BytesMut};
use midspan::error::{Error, ErrorKind};
use midspan::stream::{Binding, JoinPoint, Limits, Poll, Reader, ReaderConfig};
use midspan::wire::{CheckWidth, Kind, Mode, ModelSwitch, Scope, Seed, StreamHeader, check, kind, varint};

/// Counts the bytes in use, and their peak since the last reset.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Makes tests that read the counters run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

// SAFETY: every call is passed to the system's allocator unchanged; the counters are not part of its contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The peak of the bytes in use during `work`, above those in use before it.
fn peak(work: impl FnOnce()) -> usize {
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed) - before
}

fn largest(mode: Mode) -> StreamHeader {
    StreamHeader {
        mode,
        check: CheckWidth::None,
        max_frames: 1 << 20,
        max_chunk_bytes: 1 << 30,
        max_rewind: 1 << 20,
        target_horizon: (mode == Mode::Layered).then_some(28_672),
        ..StreamHeader::new([7; 32])
    }
}

fn encoded(header: &StreamHeader) -> BytesMut {
    let mut out = BytesMut::new();
    header.encode(&mut out).unwrap();
    out
}

fn poll_all(reader: &mut Reader) -> Result<Poll, Error> {
    loop {
        match reader.poll() {
            Ok(Poll::Event(_)) => {}
            other => return other,
        }
    }
}

/// A chunk of this kind whose body is declared to have `length` bytes; the first of them follow.
fn declared(kind: u8, length: u64, first: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::from(&[kind][..]);
    varint::encode(length, &mut out).unwrap();
    out.put_slice(first);
    out.to_vec()
}

/// [ERR-4] Nothing may be set aside in memory by a declared value before that value has passed its limit; nor by one that
/// has, before the bytes come.
#[test]
fn nothing_is_set_aside_by_a_declared_number() {
    let frames = [0xcf, 0xff, 0xff]; // frames − 1 = 2^20 − 1
    let lanes = [0x83, 0xff]; // lanes − 1 = 1,023
    let whole = [&frames[..], &lanes, &[0xff; 8]].concat();
    let sealed = |kind: Kind, fields: &[u8]| {
        let mut body = BytesMut::from(fields);
        // At index 0 and epoch 0.
        let scope = Scope {
            index: 0,
            epoch: 0,
            quality: 0,
            width: CheckWidth::None,
            seed: Seed::NONE,
            side: midspan::wire::SideCover::None,
        };
        let seed = if kind == Kind::ExactFrame { scope.exact_seed() } else { Seed::NONE };
        check::encode_control_crc(kind, seed, 0, &mut body);
        declared(kind.byte(), body.len() as u64, &body)
    };
    let cases: Vec<(Mode, Vec<u8>, Option<ErrorKind>)> = vec![
        (Mode::Joined, declared(0xc1, 1 << 30, &frames), None),
        (Mode::Joined, declared(0xe0, 1 << 30, &[]), None),
        (Mode::Joined, declared(0xc9, 1 << 30, &[0, 0xfe]), None),
        (Mode::Layered, declared(0xc3, 1 << 30, &[0; 9]), None),
        (Mode::Joined, declared(0xe0, (1 << 30) + 1, &[]), Some(ErrorKind::ChunkTooLong)),
        (Mode::Joined, declared(0xc1, varint::MAX, &[]), Some(ErrorKind::ChunkTooLong)),
        // A million frames in 1,024 lanes, but only the first bytes of the lane table.
        (Mode::Joined, declared(0xc1, whole.len() as u64, &whole), Some(ErrorKind::ChunkLayout)),
        (Mode::Layered, declared(0xc1, whole.len() as u64, &whole), Some(ErrorKind::TooManyFrames)),
        // An exact frame that states more bytes than there are.
        (
            Mode::Joined,
            sealed(Kind::ExactFrame, &[0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Some(ErrorKind::ChunkLayout),
        ),
    ];
    let _alone = ALONE.lock().unwrap();
    for (mode, chunk, want) in cases {
        let stream = [&encoded(&largest(mode))[..], &chunk].concat();
        let mut outcome = Ok(Poll::End);
        let used = peak(|| {
            let mut reader = Reader::new(ReaderConfig::default().binding(Binding::ByteStream).limits(Limits::FORMAT));
            reader.push(&stream).unwrap();
            outcome = poll_all(&mut reader);
        });
        assert_eq!(outcome.err().map(|error| error.kind()), want, "{chunk:x?}");
        assert!(used < 64_000, "{used} bytes for {chunk:x?}");
    }
    // A seek index of a million entries that are missing.
    let file = StreamHeader { file: true, ..largest(Mode::Joined) };
    let mut stream = encoded(&file).to_vec();
    stream.extend(sealed(Kind::End, &[0; 10]));
    stream.extend(sealed(Kind::SeekIndex, &[0xd0, 0x00, 0x00, 0, 1]));
    let used = peak(|| {
        let mut reader = Reader::new(ReaderConfig::default().binding(Binding::ByteStream).limits(Limits::FORMAT));
        reader.push(&stream).unwrap();
        assert_eq!(poll_all(&mut reader).unwrap_err().kind(), ErrorKind::ChunkLayout);
    });
    assert!(used < 64_000, "{used} bytes for a seek index");
}

/// Checks the counters: pushed bytes are held until they are polled.
#[test]
fn the_counters_see_what_is_held() {
    let _alone = ALONE.lock().unwrap();
    assert!(peak(|| drop(vec![0_u8; 100_000])) >= 100_000);
}

/// [CAP-4] The smallest limits that a reader may have read one-frame chunks and every chunk of fixed fields, whatever the
/// header declares ([HDR-9]).
#[test]
fn the_smallest_limits_of_a_reader() {
    let _alone = ALONE.lock().unwrap();
    let limits = Limits::FORMAT.max_frames(1).max_chunk_bytes(72).max_rewind(0).target_horizon(1).early_bytes(0);
    let config = ReaderConfig::default().binding(Binding::ByteStream).limits(limits);
    for mode in [Mode::Joined, Mode::Layered] {
        let header = largest(mode);
        // The longest switch: every varint in its longest form. A reader that joins accepts it.
        let index = varint::MAX - 1;
        let switch = ModelSwitch {
            index,
            epoch: u32::MAX,
            fingerprint: [9; 32],
            model_version: u32::MAX,
            quality: 255,
            length_offset: 16_383,
            digest_w: u32::MAX,
            digest_y: u32::MAX,
        };
        let mut body = BytesMut::new();
        switch.encode(Default::default(), &mut body).unwrap();
        assert_eq!(body.len(), 65, "the longest switch; every reader takes 72 bytes");
        let mut stream = BytesMut::new();
        let append = |kind: Kind, body: &[u8], stream: &mut BytesMut| {
            kind::encode_head(kind, body.len(), 16_383, stream).unwrap();
            stream.put_slice(body);
        };
        append(Kind::ModelSwitch, &body, &mut stream);
        append(Kind::Frame, &[1; 72], &mut stream);
        let mut reader = Reader::join(config, header.clone(), JoinPoint::default());
        reader.push(&stream).unwrap();
        assert_eq!(poll_all(&mut reader), Ok(Poll::NeedMore), "{mode:?}");
        assert_eq!(reader.sequence().unwrap().next_index(), varint::MAX);
        // One byte more is refused at its offset.
        let mut reader = Reader::new(config);
        reader.push(&encoded(&header)).unwrap();
        assert_eq!(poll_all(&mut reader), Ok(Poll::NeedMore), "a header that declares more is no error");
        reader.push(&[73]).unwrap();
        let at = encoded(&header).len() as u64;
        let error = poll_all(&mut reader).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::ChunkTooLong, at));
    }
}
