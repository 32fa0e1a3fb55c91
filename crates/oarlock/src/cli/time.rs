//! Times of the calendar, in UTC: machines of one cluster may disagree about the zone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-03-21T12:00:00.123Z`.
pub fn utc_ms(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second % 3600 / 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// `2026-03-21 12:00 UTC`.
pub fn utc_minute(unix_s: u64) -> String {
    let text = utc_ms(unix_s.saturating_mul(1000));
    format!("{} {} UTC", &text[..10], &text[11..16])
}

/// `20260321-120000`, for names of files.
pub fn compact(unix_s: u64) -> String {
    let text = utc_ms(unix_s.saturating_mul(1000));
    text[..19].replace(['-', ':'], "").replace('T', "-")
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Year, month and day of a day counted from 1970-01-01 (proleptic Gregorian calendar, counted in
/// years that begin in March so that leap days come last).
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(utc_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc_ms(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(utc_ms(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc_ms(1_735_689_599_000), "2024-12-31T23:59:59.000Z");
        assert_eq!(compact(1_735_689_599), "20241231-235959");
        assert_eq!(utc_minute(4_107_542_400), "2100-03-01 00:00 UTC");
    }
}
