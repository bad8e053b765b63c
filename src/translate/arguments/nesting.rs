//! The open arrays and objects of a JSON text, up to [`DEPTH_MAX`](super::DEPTH_MAX).

/// The open containers. The caller opens no more than [`DEPTH_MAX`](super::DEPTH_MAX).
#[derive(Clone, Debug)]
pub(super) struct Nesting {
    /// One bit for each container, the innermost in the lowest bit; 1 is an object. The highest bit that is set stands
    /// above all of them, so that it gives their number.
    kinds: u128,
}

impl Default for Nesting {
    fn default() -> Self {
        Nesting { kinds: 1 }
    }
}

impl Nesting {
    pub(super) fn open(&mut self, is_object: bool) {
        self.kinds = self.kinds << 1 | u128::from(is_object);
    }

    /// Closes the innermost container.
    pub(super) fn close(&mut self) {
        self.kinds = (self.kinds >> 1).max(1);
    }

    /// The number of open containers.
    pub(super) fn depth(&self) -> usize {
        self.kinds.ilog2() as usize
    }

    pub(super) fn is_in_object(&self) -> bool {
        self.depth() > 0 && self.kinds & 1 == 1
    }

    /// The byte that closes the innermost container.
    pub(super) fn closer(&self) -> u8 {
        if self.is_in_object() { b'}' } else { b']' }
    }

    /// The byte that closes the container around the innermost one, if there are two.
    pub(super) fn outer_closer(&self) -> Option<u8> {
        (self.depth() >= 2).then_some(if self.kinds >> 1 & 1 == 1 { b'}' } else { b']' })
    }
}
