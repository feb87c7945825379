//! The crc of a frame's integers, of which sessions make the digests (spec 6.4).

/// `c_W` or `c_Y`: the crc of one frame's integers, W or Y.
#[must_use]
pub fn frame_crc(values: &[i16]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = [0_u8; 512];
    for part in values.chunks(256) {
        for (slot, value) in bytes.chunks_exact_mut(2).zip(part) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(bytes.get(..part.len().saturating_mul(2)).unwrap_or(&[]));
    }
    hasher.finalize()
}

/// The crcs of the W, `[T, C]`, and the Y, `[T, E]`, of each of some frames.
pub(super) fn frame_crcs(w: &[i16], channels: usize, y: &[i16], width: usize) -> Vec<(u32, u32)> {
    let frames = w.chunks_exact(channels).zip(y.chunks_exact(width));
    frames.map(|(w, y)| (frame_crc(w), frame_crc(y))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_crc_is_over_little_endian_values() {
        assert_eq!(frame_crc(&[0x3231, 0x3433, 0x3635, 0x3837]), crc32fast::hash(b"12345678"));
        let long: Vec<i16> = (0..1000).map(|value| value * 31 - 9000).collect();
        let bytes: Vec<u8> = long.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(frame_crc(&long), crc32fast::hash(&bytes));
    }
}
