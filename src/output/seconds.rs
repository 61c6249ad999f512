//! Writes seconds into a report, rounded to milliseconds.

pub(super) fn milliseconds<S: serde::Serializer>(seconds: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((seconds * 1000.0).round() / 1000.0)
}

pub(super) fn milliseconds_if_known<S: serde::Serializer>(
    seconds: &Option<f64>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match seconds {
        Some(seconds) => milliseconds(seconds, serializer),
        None => serializer.serialize_none(),
    }
}
