//! Memory that is shared with the kernel from call to call.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::BATCH;

/// As many values as a batch has datagrams, on the heap, owned through a raw pointer.
///
/// Message headers keep copies of that pointer between calls. A box could not be the owner: each use of a
/// box asserts that there is no other way to its contents, which makes such copies invalid, so all pointers
/// of a batch would have to be written again before each call (one request at a time, that is a twentieth
/// of its instructions). Here each reference is derived from the raw pointer and ends with its borrow, so
/// the copies stay valid for as long as this lives.
pub(super) struct Slots<T> {
    /// Points to `BATCH` values that nothing else owns.
    start: NonNull<T>,
}

impl<T: Clone> Slots<T> {
    /// Each slot with this value.
    pub(super) fn new(value: T) -> Self {
        let slots = vec![value; BATCH].into_boxed_slice();
        Self {
            start: NonNull::from(Box::leak(slots)).cast(),
        }
    }
}

impl<T> Slots<T> {
    /// Where slot number `at` is. Valid to read and write while these slots live and are not borrowed.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn pointer(&self, at: usize) -> *mut T {
        assert!(at < BATCH, "slot {at} of {BATCH}");
        self.start.as_ptr().wrapping_add(at)
    }
}

impl<T> Deref for Slots<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` points to `BATCH` initialized values that live as long as `self`. Whoever writes
        // to them, as the kernel does, has `self` borrowed mutably.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), BATCH) }
    }
}

impl<T> DerefMut for Slots<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably for as long as the slice is.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), BATCH) }
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        let slots = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), BATCH);
        // SAFETY: `new` has taken these values out of a box of this length, and nothing uses them after
        // this.
        drop(unsafe { Box::from_raw(slots) });
    }
}

// SAFETY: it owns its values, as a box does.
unsafe impl<T: Send> Send for Slots<T> {}
// SAFETY: a shared reference to it gives shared references to its values, and pointers, which cannot be
// used without unsafe code.
unsafe impl<T: Sync> Sync for Slots<T> {}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn pointers_stay_valid_while_slots_are_read_and_written() {
        let mut slots = Slots::new(0_u32);
        let third = slots.pointer(2);
        slots[2] = 1;
        // SAFETY: the slots live and are not borrowed.
        unsafe { *third += 1 };
        assert_eq!(slots[2], 2);
        slots.iter_mut().for_each(|slot| *slot += 1);
        // SAFETY: as above.
        unsafe { *third += 1 };
        assert_eq!(slots[2], 4);
        assert_eq!(slots.len(), BATCH);
    }

    #[test]
    fn values_are_dropped_once() {
        let value = Rc::new(());
        let slots = Slots::new(Rc::clone(&value));
        assert_eq!(Rc::strong_count(&value), BATCH + 1);
        drop(slots);
        assert_eq!(Rc::strong_count(&value), 1);
    }

    #[test]
    #[should_panic(expected = "slot 64 of 64")]
    fn there_is_no_pointer_past_the_end() {
        Slots::new(0).pointer(BATCH);
    }
}
