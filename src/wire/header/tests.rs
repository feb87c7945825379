use super::*;

const STREAM: Option<Binding> = Some(Binding::ByteStream);
const MESSAGES: Option<Binding> = Some(Binding::Message);

fn encoded(header: &StreamHeader) -> BytesMut {
    let mut out = BytesMut::new();
    header.encode(&mut out).unwrap();
    out
}

/// The bytes of a header with this body, with the right length and crc.
fn with_body(body: &[u8]) -> BytesMut {
    let mut out = BytesMut::from(&b"MSP\x9e\x01\x01"[..]);
    varint::encode(body.len() as u64, &mut out).unwrap();
    out.put_slice(body);
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out
}

/// The smallest body: joined, no check, model version 0, quality 0, at most 1 frame and 72 bytes a chunk, no rewind, length offset
/// 0.
fn smallest() -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend([7; 32]);
    body.extend([0, 0, 1, 72, 0, 0]);
    body
}

fn refused(bytes: &[u8]) -> Error {
    StreamHeader::load(bytes, STREAM).unwrap_err()
}

#[test]
fn the_smallest_header_byte_by_byte() {
    let header =
        StreamHeader { check: CheckWidth::None, max_frames: 1, max_chunk_bytes: 72, ..StreamHeader::new([7; 32]) };
    let bytes = encoded(&header);
    assert_eq!(bytes[..7], *b"MSP\x9e\x01\x01\x28"); // magic, format version, minimum reader version, 40 bytes
    assert_eq!(bytes[7..47], smallest());
    assert_eq!(bytes[47..], crc32fast::hash(&bytes[..47]).to_le_bytes());
    assert_eq!(StreamHeader::load(&bytes, STREAM), Ok(Some((header.clone(), 51))));
    for end in 0..51 {
        assert_eq!(StreamHeader::load(&bytes[..end], STREAM), Ok(None));
    }
    assert_eq!((header.fingerprint_offset(), header.quality_offset()), (9, 42));
}

#[test]
fn a_header_with_everything() {
    let mut header = StreamHeader {
        mode: Mode::Layered,
        check: CheckWidth::Two,
        file: true,
        model_version: u32::MAX,
        quality: 255,
        host_digest: Some([9; 32]),
        max_frames: 1 << 20,
        max_chunk_bytes: 1 << 30,
        max_rewind: 1 << 20,
        target_horizon: Some(28_672),
        length_offset: 16_383,
        ..StreamHeader::new([7; 32])
    };
    header.set_optional(OptionalField::grease_id(3).unwrap(), &b"grease"[..]);
    header.set_optional(OptionalField::PRODUCER, &b"midspan"[..]);
    header.set_optional(1_000, vec![0; 30]); // not assigned: passes through
    let bytes = encoded(&header);
    assert_eq!(bytes[8], 0b0011_1001);
    assert_eq!(StreamHeader::load(&bytes, STREAM), Ok(Some((header.clone(), bytes.len()))));
    assert_eq!(header.producer(), Some("midspan"));
    assert_eq!(header.fingerprint_offset(), 10);
    assert_eq!(bytes[10..42], [7; 32]);
    assert_eq!(bytes[header.quality_offset() as usize], 255);
    assert_eq!(header.flags_offset(), 8);
    assert_eq!(StreamHeader::load(&bytes, MESSAGES), Err(Error::new(ErrorKind::WrongBinding, 8)));
    assert_eq!(StreamHeader::load(&bytes, None), Ok(Some((header.clone(), bytes.len()))));
    header.set_optional(2, &b"\xff"[..]);
    assert_eq!(header.producer(), None);
    assert_eq!(header.optional.len(), 3);
}

#[test]
fn the_identity_stands_among_the_fields_by_its_id() {
    // A header from a peer, with fields 0, 1 and 2.
    let mut body = smallest();
    body.extend([0, 2, 5, 6, 1, 8]);
    body.extend(*b"identity");
    body.extend([2, 1, b'x']);
    let bytes = with_body(&body);
    let (header, _) = StreamHeader::load(&bytes, STREAM).unwrap().unwrap();
    assert_eq!((header.identity, header.optional.len()), (Identity::new(*b"identity"), 2));
    assert_eq!(encoded(&header), bytes);
    // The same header, made here.
    let mut own =
        StreamHeader { check: CheckWidth::None, max_frames: 1, max_chunk_bytes: 72, ..StreamHeader::new([7; 32]) };
    own.set_optional(2, &b"x"[..]);
    own.set_optional(0, vec![5, 6]);
    own.identity = Identity::new(*b"identity");
    assert_eq!(encoded(&own), bytes);
    // Without an identity, and with fields on one side of it only.
    for (identity, ids) in [(Identity::none(), [0, 2]), (own.identity, [0, 0]), (own.identity, [2, 2])] {
        let mut header = StreamHeader { identity, optional: Vec::new(), ..own.clone() };
        ids.into_iter().for_each(|id| header.set_optional(id, vec![1]));
        let bytes = encoded(&header);
        assert_eq!(StreamHeader::load(&bytes, STREAM), Ok(Some((header, bytes.len()))));
    }
    // The identity cannot be set as an optional field.
    for id in [1, 3] {
        let mut header = StreamHeader { identity: Identity::none(), ..own.clone() };
        header.set_optional(id, vec![8; 8]);
        assert_eq!(header.encode(&mut BytesMut::new()).unwrap_err().kind(), ErrorKind::BadConfig);
    }
}

#[test]
fn a_later_format_version_is_read_as_version_1() {
    let mut bytes = encoded(&StreamHeader::new([7; 32]));
    bytes.truncate(bytes.len() - 4);
    bytes[4] = 9;
    let crc = crc32fast::hash(&bytes);
    bytes.put_u32_le(crc);
    let (header, _) = StreamHeader::load(&bytes, STREAM).unwrap().unwrap();
    assert_eq!(header, StreamHeader { format_version: 9, ..StreamHeader::new([7; 32]) });
}

#[test]
fn magic_versions_and_length_are_refused_early() {
    for (bytes, kind, offset) in [
        (&b"N"[..], ErrorKind::BadMagic, 0),
        (b"MSP\x9d", ErrorKind::BadMagic, 0),
        (b"MSP\x9e\x00", ErrorKind::BadVersion, 4),
        (b"MSP\x9e\x01\x00", ErrorKind::BadVersion, 5),
        (b"MSP\x9e\x01\x02", ErrorKind::BadVersion, 5),
        (b"MSP\x9e\x02\x02", ErrorKind::ReaderTooOld, 5),
        (b"MSP\x9e\x01\x01\x27", ErrorKind::FieldOutOfRange, 6),
        (b"MSP\x9e\x01\x01\x90\x01", ErrorKind::FieldOutOfRange, 6), // 4,097
        (b"MSP\x9e\x01\x01\x80\x24", ErrorKind::VarintNotShortest, 6),
        (b"MSP\x9e\x01\x01\xff", ErrorKind::VarintReserved, 6),
    ] {
        assert_eq!(refused(bytes), Error::new(kind, offset));
        assert_eq!(StreamHeader::load(&bytes[..bytes.len() - 1], STREAM), Ok(None));
    }
}

#[test]
fn the_crc_comes_before_the_body() {
    let mut body = smallest();
    body[0] = 0xff;
    let mut bytes = with_body(&body);
    assert_eq!(refused(&bytes), Error::new(ErrorKind::ReservedHeaderBits, 7));
    bytes[20] ^= 1;
    assert_eq!(refused(&bytes), Error::new(ErrorKind::HeaderCrcMismatch, 47));
}

#[test]
fn reserved_bits_tracks_and_limits() {
    for (place, value, kind) in [
        (0, 0b10, ErrorKind::ReservedHeaderBits),
        (0, 0b11, ErrorKind::ReservedHeaderBits),
        (0, 0b1100, ErrorKind::ReservedHeaderBits),
        (0, 0b0100_0000, ErrorKind::WrongBinding),
        (0, 0b0110_0000, ErrorKind::ReservedHeaderBits),
        (0, 0b1110_0000, ErrorKind::ReservedHeaderBits),
        (1, 0, ErrorKind::TrackCount),
        (1, 2, ErrorKind::TrackCount),
        (36, 0, ErrorKind::FieldOutOfRange),
        (37, 71, ErrorKind::FieldOutOfRange),
        (34, 0xff, ErrorKind::VarintReserved),
    ] {
        let mut body = smallest();
        body[place] = value;
        assert_eq!(refused(&with_body(&body)), Error::new(kind, 7 + place as u64));
    }
    let mut body = smallest();
    body.truncate(38);
    body.extend([0xd0, 0x00, 0x01, 0]); // max rewind 2^20 + 1
    assert_eq!(refused(&with_body(&body)), Error::new(ErrorKind::FieldOutOfRange, 7 + 38));
    let mut body = smallest();
    body.truncate(39);
    body.extend([0xc0, 0x40, 0x00]); // length offset 16,384
    assert_eq!(refused(&with_body(&body)), Error::new(ErrorKind::FieldOutOfRange, 7 + 39));
}

#[test]
fn hdr_13_the_header_says_its_binding() {
    for (binding, flags) in [(Binding::ByteStream, 0), (Binding::Message, 0b0100_0000)] {
        let header = StreamHeader { binding, check: CheckWidth::None, ..StreamHeader::new([7; 32]) };
        let bytes = encoded(&header);
        assert_eq!(bytes[7], flags);
        assert_eq!(StreamHeader::load(&bytes, Some(binding)), Ok(Some((header, bytes.len()))));
        let other = if binding == Binding::Message { STREAM } else { MESSAGES };
        assert_eq!(StreamHeader::load(&bytes, other), Err(Error::new(ErrorKind::WrongBinding, 7)));
    }
}

#[test]
fn a_body_that_ends_inside_a_field() {
    for end in 36..40 {
        // A longer version fills the place of what is cut off.
        let mut body = smallest();
        body.splice(34..35, [0xf0, 0x10, 0, 0, 0]);
        body.truncate(end + 4);
        assert_eq!(refused(&with_body(&body)), Error::new(ErrorKind::HeaderLayout, 7 + 4 + end as u64));
    }
    assert_eq!(refused(&with_body(&smallest()[..39])), Error::new(ErrorKind::FieldOutOfRange, 6));
    let mut body = smallest();
    (body[0], body[39]) = (1, 1); // layered, with a target horizon of 1: the length offset is missing
    assert_eq!(refused(&with_body(&body)), Error::new(ErrorKind::HeaderLayout, 7 + 40));
    body[0] = 1 << 4; // a host digest exceeds the body
    assert_eq!(refused(&with_body(&body)), Error::new(ErrorKind::HeaderLayout, 7 + 36));
}

#[test]
fn optional_fields() {
    let with = |fields: &[u8]| with_body(&[&smallest(), fields].concat());
    let optional = |fields: &[u8]| StreamHeader::load(&with(fields), STREAM).unwrap().unwrap().0.optional;
    assert_eq!(optional(&[2, 1, b'a', 40, 0, 102, 2, 0, 0]).len(), 3);
    assert_eq!(optional(&[0, 0])[0].id, 0);
    for (fields, kind, offset) in [
        (&[2, 0, 2, 0][..], ErrorKind::OptionalFieldOrder, 2),
        (&[40, 0, 2, 0], ErrorKind::OptionalFieldOrder, 2),
        (&[3, 0], ErrorKind::UnknownCriticalField, 0),
        (&[41], ErrorKind::UnknownCriticalField, 0),
        (&[2], ErrorKind::HeaderLayout, 1),
        (&[2, 2, 0], ErrorKind::HeaderLayout, 1),
        (&[2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ErrorKind::HeaderLayout, 1),
        (&[0x80], ErrorKind::HeaderLayout, 0),
        (&[0xf8, 8, 0, 0, 0, 0, 0], ErrorKind::FieldOutOfRange, 0),
    ] {
        assert_eq!(refused(&with(fields)), Error::new(kind, 7 + 40 + offset), "{fields:x?}");
    }
}

#[test]
fn what_cannot_be_written() {
    let good = StreamHeader::new([7; 32]);
    let field = |id| OptionalField { id, value: Bytes::new() };
    for bad in [
        StreamHeader { format_version: 0, ..good.clone() },
        StreamHeader { max_frames: 0, ..good.clone() },
        StreamHeader { max_frames: MAX_FRAMES + 1, ..good.clone() },
        StreamHeader { max_chunk_bytes: 71, ..good.clone() },
        StreamHeader { length_offset: 16_384, ..good.clone() },
        StreamHeader { max_rewind: MAX_REWIND + 1, ..good.clone() },
        StreamHeader { target_horizon: Some(1), ..good.clone() },
        StreamHeader { mode: Mode::Layered, ..good.clone() },
        StreamHeader { mode: Mode::Layered, target_horizon: Some(0), ..good.clone() },
        StreamHeader { mode: Mode::Layered, target_horizon: Some(28_673), ..good.clone() },
        StreamHeader { binding: Binding::Message, file: true, ..good.clone() },
        StreamHeader { optional: vec![field(4), field(2)], ..good.clone() },
        StreamHeader { optional: vec![field(3)], ..good.clone() },
        StreamHeader { optional: vec![OptionalField { id: 2, value: vec![0; 4_096].into() }], ..good },
    ] {
        let mut out = BytesMut::new();
        assert_eq!(bad.encode(&mut out).unwrap_err().kind(), ErrorKind::BadConfig);
        assert!(out.is_empty());
    }
}

#[test]
fn the_identity_is_the_first_optional_field() {
    let mut header = StreamHeader { identity: Identity::new(*b"identity"), ..StreamHeader::new([7; 32]) };
    header.set_optional(OptionalField::PRODUCER, &b"p"[..]);
    let bytes = encoded(&header);
    let fields = b"\x01\x08identity\x02\x01p";
    assert!(bytes[..bytes.len() - 4].ends_with(fields));
    assert_eq!(StreamHeader::load(&bytes, STREAM), Ok(Some((header.clone(), bytes.len()))));
    assert_eq!(header.optional.len(), 1);
    // Ten bytes more than without an identity.
    let without = encoded(&StreamHeader { identity: Identity::none(), ..header });
    assert_eq!(bytes.len(), without.len() + 10);
}

#[test]
fn an_identity_of_another_length_is_refused_at_its_length() {
    for value in [&[][..], &[1; 7], &[1; 9]] {
        let body = [&smallest()[..], &[1, value.len() as u8], value].concat();
        assert_eq!(refused(&with_body(&body)), Error::new(ErrorKind::HeaderLayout, 7 + 40 + 1), "{}", value.len());
    }
    // Twice, or after a field of a larger id.
    for fields in [&[1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], &[2, 0, 1, 0]] {
        let body = [&smallest()[..], fields].concat();
        let at = 7 + 40 + fields.len() as u64 - 2;
        assert_eq!(refused(&with_body(&body)), Error::new(ErrorKind::OptionalFieldOrder, at));
    }
    // Other critical ids stay unknown.
    let body = [&smallest()[..], &[3, 0]].concat();
    assert_eq!(refused(&with_body(&body)), Error::new(ErrorKind::UnknownCriticalField, 7 + 40));
}
