//! A hint to the processor.

/// Has the cache line of `at` fetched while other work goes on. Changes nothing, and does nothing on
/// processors that we know no such hint of.
#[inline]
pub(super) fn prefetch<T: ?Sized>(at: &T) {
    let at = std::ptr::from_ref(at);
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[allow(
            unsafe_code,
            reason = "a hint without effect, on an address that a reference vouches for"
        )]
        // SAFETY: prefetching has no effect but on the caches.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        #[allow(
            unsafe_code,
            reason = "a hint without effect, on an address that a reference vouches for"
        )]
        // SAFETY: prefetching has no effect but on the caches.
        unsafe {
            std::arch::asm!(
                "prfm pldl1keep, [{at}]",
                at = in(reg) at.cast::<u8>(),
                options(nostack, readonly, preserves_flags),
            );
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}
