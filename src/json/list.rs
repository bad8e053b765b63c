//! The items of an array or the entries of an object: owned, or shared with whoever holds them.

use std::ops::Deref;

/// A list whose items are its own, or stand in other memory: a [`super::Document`]'s, or another tree's. Reading is the
/// same for both; [`List::to_mut`] copies what is shared, one level deep.
///
/// Not `Cow<[T]>`: of that, the compiler would not shorten the lifetime.
#[derive(Clone, Debug)]
pub enum List<'a, T> {
    /// Its own.
    Owned(Vec<T>),
    /// Of others.
    Shared(&'a [T]),
}

/// What a list can copy without copying what stands below it.
pub trait Share<'a> {
    /// The same item, whose own lists are shared.
    fn share(&'a self) -> Self;
}

impl<T> Deref for List<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            List::Owned(items) => items,
            List::Shared(items) => items,
        }
    }
}

impl<'a, T: Share<'a>> List<'a, T> {
    /// The items to change.
    pub fn to_mut(&mut self) -> &mut Vec<T> {
        if let List::Shared(items) = *self {
            *self = List::Owned(items.iter().map(T::share).collect());
        }
        match self {
            List::Owned(items) => items,
            List::Shared(_) => unreachable!("made owned just before"),
        }
    }

    /// The items.
    pub fn into_vec(mut self) -> Vec<T> {
        std::mem::take(self.to_mut())
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        List::Owned(Vec::new())
    }
}

impl<T: PartialEq> PartialEq for List<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T> From<Vec<T>> for List<'_, T> {
    fn from(items: Vec<T>) -> Self {
        List::Owned(items)
    }
}

impl<T> FromIterator<T> for List<'_, T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        List::Owned(items.into_iter().collect())
    }
}
