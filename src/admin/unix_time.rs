//! Times of the API: seconds since 1970, and texts of them.

use std::time::{SystemTime, UNIX_EPOCH};

use scion_tracker_core::access::Expiry;

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// When something expires that is valid for so many seconds from now, `None` for ever.
pub(super) fn expiry(seconds_valid: Option<u64>) -> Expiry {
    seconds_valid.map_or(Expiry::Never, |seconds| {
        Expiry::At(now().saturating_add(seconds))
    })
}

/// Seconds since 1970, `None` for never.
pub(super) const fn until(expiry: Expiry) -> Option<u64> {
    match expiry {
        Expiry::Never => None,
        Expiry::At(at) => Some(at),
    }
}

/// A time as torrust writes it, such as "1970-01-01 00:01:00 UTC". The proleptic Gregorian calendar, also for
/// years of more than four digits.
pub(super) fn text(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Days since 0000-03-01, so that a leap day is the last day of its year: the algorithm
    // `civil_from_days` of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_texts() {
        // From date(1): date -u -d @SECONDS "+%F %T UTC".
        for (unix, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (60, "1970-01-01 00:01:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_800, "10000-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(text(unix), expected);
        }
        // No overflow.
        assert!(text(u64::MAX).ends_with(" UTC"));
    }
}
