//! The items of an array or the entries of an object: owned by the list, or shared with another owner.

use std::ops::Deref;

/// A list that owns its items, or borrows them from other memory: a [`super::Document`]'s, or another tree's. Reading
/// is the same for both; [`List::to_mut`] copies shared items, one level deep.
///
/// This is not `Cow<[T]>`, because the compiler would not shorten its lifetime.
#[derive(Clone, Debug)]
pub enum List<'a, T> {
    /// Items of its own.
    Owned(Vec<T>),
    /// Items in other memory.
    Shared(&'a [T]),
}

/// An item that a list can copy without copying the items below it.
pub trait Share<'a> {
    /// A copy of the item whose own lists are shared.
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
    /// The items, to be changed. Shared items are copied first.
    pub fn to_mut(&mut self) -> &mut Vec<T> {
        if let List::Shared(items) = *self {
            *self = List::Owned(items.iter().map(T::share).collect());
        }
        match self {
            List::Owned(items) => items,
            List::Shared(_) => unreachable!("made owned just before"),
        }
    }

    /// The items as a vector. Shared items are copied.
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
