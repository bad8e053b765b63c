//! The open arrays and objects of a JSON text, up to [`DEPTH_MAX`](super::DEPTH_MAX).

/// The open containers. The caller opens no more than [`DEPTH_MAX`](super::DEPTH_MAX).
#[derive(Clone, Debug, Default)]
pub(super) struct Nesting {
    /// One bit for each container, the innermost in the lowest bit; 1 is an object.
    kinds: u128,
    depth: usize,
}

impl Nesting {
    pub(super) fn open(&mut self, is_object: bool) {
        self.kinds = self.kinds << 1 | u128::from(is_object);
        self.depth += 1;
    }

    /// Closes the innermost container.
    pub(super) fn close(&mut self) {
        self.kinds >>= 1;
        self.depth = self.depth.saturating_sub(1);
    }

    /// The number of open containers.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn is_in_object(&self) -> bool {
        self.kinds & 1 == 1
    }

    /// The byte that closes the innermost container.
    pub(super) fn closer(&self) -> u8 {
        if self.is_in_object() { b'}' } else { b']' }
    }

    /// The byte that closes the container around the innermost one, if there are two.
    pub(super) fn outer_closer(&self) -> Option<u8> {
        (self.depth >= 2).then_some(if self.kinds >> 1 & 1 == 1 { b'}' } else { b']' })
    }
}
