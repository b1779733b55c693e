//! Plain data that every room may speak of: what there is, not what is done with it. No IO, no clock, no store.

mod challenge;
mod event;
mod evidence;
mod factor;
mod hex;
mod ids;
mod message;
mod moment;
mod named;
mod portal;
mod recovery;
mod relying_party;
mod session;
mod user;
mod webhook;

pub use challenge::{Challenge, ChallengeStatus, Client, Detail, Display, Portal, Prompt, Proof, Requirement, Terms};
pub use event::{Actor, ChainHead, EVENT_TYPES, Event, Link, Outcome, Recorded, Source};
pub use evidence::{Acr, Channel, Evidence};
pub use factor::{Details, Factor, MethodKind, SmsDetails, WebauthnDetails};
pub use hex::{hex, unhex};
pub use ids::{Id, Kind};
pub use message::{Budget, BudgetKey, Message, Number};
pub use moment::{Keyed, Moment, Rng, Timestamp};
pub(crate) use named::named;
pub use portal::{Flow, PortalSession};
pub use recovery::{RecoverySet, RecoveryStatus, RecoverySummary};
pub use relying_party::{ApiKey, Mode, RelyingParty, Scope};
pub use session::{Grant, Session};
pub use user::{MAX_USER_ID, User, misleads};
pub use webhook::{Delivery, Endpoint, Reply};
