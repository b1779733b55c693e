//! A page of a list.

use serde::Serialize;
use utoipa::ToSchema;

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub struct List<T: ToSchema> {
    /// The page.
    data: Vec<T>,
    /// There is more behind it, or may be where not all was looked through: go on as long as this is true, also where the page is empty.
    has_more: bool,
    /// Pass it as `cursor` for the next page.
    next_cursor: Option<String>,
}

impl<T: ToSchema> List<T> {
    /// The first `limit` of what was found; one more than that was looked for.
    pub fn of(mut found: Vec<(String, T)>, limit: usize) -> List<T> {
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next_cursor = found.last().filter(|_| has_more).map(|(id, _)| id.clone());
        List { data: found.into_iter().map(|(_, view)| view).collect(), has_more, next_cursor }
    }

    /// The same where not all was looked through: there may be more behind this.
    pub fn going_on_behind(self, cursor: Option<String>) -> List<T> {
        let has_more = self.has_more || cursor.is_some();
        List { has_more, next_cursor: self.next_cursor.or(cursor), ..self }
    }
}
