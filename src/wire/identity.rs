//! The stream identity (spec 2.2, field 1): eight bytes that every check, crc and digest of a stream starts from.

use bytes::Bytes;

use super::header::OptionalField;

/// What distinguishes a stream from every other stream of its model.
///
/// Nothing else that a check covers differs between two streams of one model: a splice from one into the other, at
/// equal index and epoch, would pass. The library makes no random numbers, so the caller gives eight bytes that no
/// other stream has, or says [`Identity::none`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(Option<[u8; 8]>);

impl Identity {
    /// The id of the header field: 1. It is critical, because a reader that does not know the field cannot check the
    /// stream.
    pub const FIELD: u32 = 1;

    /// An identity of these eight bytes, which should come from a random number generator.
    #[must_use]
    pub const fn new(bytes: [u8; 8]) -> Identity {
        Identity(Some(bytes))
    }

    /// No identity, and no field: a splice with another stream may go unnoticed.
    #[must_use]
    pub const fn none() -> Identity {
        Identity(None)
    }

    /// The eight bytes, if there are any.
    #[must_use]
    pub const fn bytes(&self) -> Option<&[u8; 8]> {
        self.0.as_ref()
    }

    /// The value that checks, crcs and digests start from.
    #[must_use]
    pub fn seed(&self) -> Seed {
        Seed(self.0.map_or(0, |bytes| crc32fast::hash(&bytes)))
    }

    /// The header field; `None` without an identity.
    pub(super) fn encode(&self) -> Option<OptionalField> {
        self.0.map(|bytes| OptionalField { id: Identity::FIELD, value: Bytes::copy_from_slice(&bytes) })
    }

    /// The identity in a field's value; `None` if the value is not eight bytes long ([HDR-11]).
    pub(super) fn load(value: &[u8]) -> Option<Identity> {
        value.try_into().ok().map(Identity::new)
    }
}

/// The crc of a stream's identity: crc32(identity), 0 without one (spec 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seed(u32);

impl Seed {
    /// The crc of a stream without an identity.
    pub const NONE: Seed = Seed(0);

    /// The value, from which a digest starts.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The crc continued over these bytes.
    pub(super) fn after(self, bytes: &[u8]) -> Seed {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        Seed(hasher.finalize())
    }

    /// A hasher that already covers the identity.
    pub(crate) fn hasher(self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial(self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_the_identity_in_front() {
        let identity = Identity::new(*b"identity");
        let mut hasher = identity.seed().hasher();
        hasher.update(b"bytes");
        assert_eq!(hasher.finalize(), crc32fast::hash(b"identitybytes"));
        let mut hasher = Identity::none().seed().hasher();
        hasher.update(b"bytes");
        assert_eq!(hasher.finalize(), crc32fast::hash(b"bytes"));
    }

    #[test]
    fn the_field_holds_eight_bytes() {
        let identity = Identity::new([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Identity::load(&identity.encode().unwrap().value), Some(identity));
        assert_eq!(Identity::none().encode(), None);
        assert_eq!((Identity::load(&[0; 7]), Identity::load(&[0; 9])), (None, None));
    }
}
