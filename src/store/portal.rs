//! Portal sessions: a person's visits to our own pages.

use sqlx::FromRow;

use super::events::append;
use super::{Contest, Error, Result, Store, won};
use crate::model::{Event, Flow, Id, PortalSession, Timestamp};

#[derive(FromRow)]
struct PortalRow {
    rp_id: String,
    user_id: String,
    id: String,
    flow: String,
    return_url: Option<String>,
    created_at: i64,
    expires_at: i64,
    link_hash: Vec<u8>,
    link_opened_at: Option<i64>,
    browser_hash: Option<Vec<u8>>,
    client_token_hash: Vec<u8>,
    session_id: Option<String>,
    factor_id: Option<String>,
}

impl Store {
    /// Opens a portal session.
    pub async fn create_portal_session(&self, portal: &PortalSession, event: &Event) -> Result<()> {
        write!(self, (portal, event) conn => {
            sql! { conn,
                "insert into portal_sessions (rp_id, user_id, id, flow, return_url, created_at, expires_at,
                 link_hash, link_opened_at, browser_hash, client_token_hash, session_id)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                portal.rp_id.as_str(), &portal.user_id, portal.id.as_str(), portal.flow.as_str(), &portal.return_url,
                portal.created_at.0, portal.expires_at.0, &portal.link_hash, portal.link_opened_at.map(|t| t.0),
                &portal.browser_hash, &portal.client_token_hash, portal.session_id.as_ref().map(|s| s.as_str())
            };
            append!(conn, &event);
            Ok(())
        })
    }

    /// A portal session by its id alone; the caller checks how it was reached.
    pub async fn portal_session(&self, id: &Id) -> Result<Option<PortalSession>> {
        let row: Option<PortalRow> = read_row! { self,
            "select rp_id, user_id, id, flow, return_url, created_at, expires_at, link_hash, link_opened_at,
             browser_hash, client_token_hash, session_id, factor_id
             from portal_sessions where id = $1",
            id.as_str()
        };
        row.map(|row| {
            Ok(PortalSession {
                id: Id::stored(row.id),
                rp_id: Id::stored(row.rp_id),
                user_id: row.user_id,
                flow: Flow::parse(&row.flow).ok_or(Error::Corrupt("portal_sessions"))?,
                return_url: row.return_url,
                created_at: Timestamp(row.created_at),
                expires_at: Timestamp(row.expires_at),
                link_hash: row.link_hash,
                link_opened_at: row.link_opened_at.map(Timestamp),
                browser_hash: row.browser_hash,
                client_token_hash: row.client_token_hash,
                session_id: row.session_id.map(Id::stored),
                factor_id: row.factor_id.map(Id::stored),
            })
        })
        .transpose()
    }

    /// Binds a portal session to the browser that opened its link; `Conflict(Token)` where another did.
    pub async fn open_portal_link(&self, portal: &PortalSession, browser_hash: &[u8], now: Timestamp) -> Result<()> {
        write_one!(self, (portal, browser_hash) conn => {
            let done = sql! { conn,
                "update portal_sessions set link_opened_at = $1, browser_hash = $2
                 where rp_id = $3 and user_id = $4 and id = $5 and link_opened_at is null and expires_at > $1",
                now.0, browser_hash, portal.rp_id.as_str(), &portal.user_id, portal.id.as_str()
            };
            won(done, Contest::Token)
        })
    }

    /// Notes the enrolment that is under way on its page.
    pub async fn set_portal_factor(&self, portal: &PortalSession, factor: &Id) -> Result<()> {
        write_one!(self, (portal, factor) conn => {
            let done = sql! { conn,
                "update portal_sessions set factor_id = $1 where rp_id = $2 and user_id = $3 and id = $4",
                factor.as_str(), portal.rp_id.as_str(), &portal.user_id, portal.id.as_str()
            };
            won(done, Contest::Row)
        })
    }
}
