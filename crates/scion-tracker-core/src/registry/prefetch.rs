//! Prefetches memory: hints to the processor to load cache lines while other work goes on.

/// Size of a cache line, on the processors for which a prefetch is implemented.
const LINE: usize = 64;

/// Prefetches the first cache line of `at`.
#[inline]
pub(super) fn prefetch<T>(at: &T) {
    hint(std::ptr::from_ref(at).cast());
}

/// Prefetches all of `at`, which may begin within a line.
#[inline]
pub(super) fn prefetch_value<T>(at: &T) {
    prefetch_slice(std::slice::from_ref(at), usize::MAX);
}

/// Prefetches the first lines of a slice.
#[inline]
pub(super) fn prefetch_slice<T>(slice: &[T], lines: usize) {
    let start = slice.as_ptr().cast::<u8>();
    let size = size_of_val(slice);
    for offset in (0..size).step_by(LINE).take(lines) {
        hint(start.wrapping_add(offset));
    }
    if size.div_ceil(LINE) <= lines {
        hint(start.wrapping_add(size.saturating_sub(1)));
    }
}

/// Prefetches a line. Does nothing on processors for which it is not implemented.
#[inline]
#[allow(
    unsafe_code,
    reason = "a hint that touches nothing but caches, whatever the address"
)]
fn hint(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction changes no memory and does not fault.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{at}]",
            at = in(reg) at,
            options(nostack, readonly, preserves_flags),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}
