//! What the WebAuthn library leaves to its caller, checked before it is asked: the JSON around a response, client data that
//! speaks of frames, and every byte of the authenticator data.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_cbor_2::Value as Cbor;
use serde_json::Value as Json;

use super::{Refusal, Url, wrong};

/// The longest credential id (WebAuthn L3, 7.1 step 25).
const LONGEST_ID: usize = 1023;

/// Flags of authenticator data (WebAuthn L3, 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    pub user_verified: bool,
    pub backup_eligible: bool,
    pub backed_up: bool,
    attested: bool,
    extended: bool,
}

impl Flags {
    fn of(byte: u8) -> Flags {
        Flags {
            user_verified: byte & 0x04 != 0,
            backup_eligible: byte & 0x08 != 0,
            backed_up: byte & 0x10 != 0,
            attested: byte & 0x40 != 0,
            extended: byte & 0x80 != 0,
        }
    }
}

/// What a registration says of itself.
pub struct Registered {
    pub credential_id: Vec<u8>,
    pub aaguid: String,
    pub flags: Flags,
    pub transports: Vec<String>,
}

/// WR-06, WR-10, WR-12, WR-13, WR-19.
pub fn registration(credential: &Json) -> Result<Registered, Refusal> {
    let id = outer_id(credential)?;
    client_data(credential)?;
    let object = bytes(credential, "attestationObject")?;
    let (object, rest) = cbor_item(&object)?;
    let Cbor::Map(object) = object else { return Err(wrong("attestation")) };
    if !rest.is_empty() || object.len() != 3 {
        return Err(wrong("attestation"));
    }
    let member = |name: &str| object.get(&Cbor::Text(name.to_owned())).ok_or(wrong("attestation"));
    let (Cbor::Text(format), Cbor::Map(statement), Cbor::Bytes(data)) =
        (member("fmt")?, member("attStmt")?, member("authData")?)
    else {
        return Err(wrong("attestation"));
    };
    if format == "none" && !statement.is_empty() {
        return Err(wrong("attestation"));
    }

    let (flags, rest) = head(data)?;
    let (aaguid, rest) = rest.split_at_checked(16).filter(|_| flags.attested).ok_or(wrong("authenticator_data"))?;
    let (length, rest) = rest.split_at_checked(2).ok_or(wrong("authenticator_data"))?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let (attested_id, rest) = rest.split_at_checked(length).ok_or(wrong("authenticator_data"))?;
    let (key, rest) = cbor_item(rest)?;
    public_key(&key)?;
    extensions(flags, rest)?;
    if attested_id != id {
        return Err(wrong("id"));
    }
    let aaguid: [u8; 16] = aaguid.try_into().map_err(|_| wrong("authenticator_data"))?;
    Ok(Registered {
        credential_id: id,
        aaguid: uuid::Uuid::from_bytes(aaguid).hyphenated().to_string(),
        flags,
        transports: transports(credential),
    })
}

/// The id of a credential, in base64url.
pub fn credential_id(credential: &Json) -> Result<String, Refusal> {
    outer_id(credential).map(|id| URL_SAFE_NO_PAD.encode(id))
}

/// WA-02, WA-04, WA-06, WA-07.
pub fn assertion(credential: &Json, handle: &[u8]) -> Result<Flags, Refusal> {
    client_data(credential)?;
    let data = bytes(credential, "authenticatorData")?;
    let (flags, rest) = head(&data)?;
    if flags.attested {
        return Err(wrong("authenticator_data"));
    }
    extensions(flags, rest)?;
    match &credential["response"]["userHandle"] {
        Json::Null => {}
        Json::String(text) => {
            if decoded(text)? != handle {
                return Err(wrong("user_handle"));
            }
        }
        _ => return Err(wrong("user_handle")),
    }
    Ok(flags)
}

/// `type`, `id` and `rawId`, which must agree.
fn outer_id(credential: &Json) -> Result<Vec<u8>, Refusal> {
    if credential["type"] != "public-key" {
        return Err(wrong("type"));
    }
    let (Json::String(id), Json::String(raw)) = (&credential["id"], &credential["rawId"]) else {
        return Err(wrong("id"));
    };
    if id != raw {
        return Err(wrong("id"));
    }
    let bytes = decoded(raw)?;
    (1..=LONGEST_ID).contains(&bytes.len()).then_some(bytes).ok_or(wrong("id"))
}

/// Frames of another origin are refused whatever they say; duplicate members too, because two readers might take different ones,
/// and a challenge or an origin that is written in another way than the one that browsers have (WebAuthn L3, 5.8.1; RFC 6454, 6.2).
fn client_data(credential: &Json) -> Result<(), Refusal> {
    /// Reads the members that decide, each at most once.
    #[derive(serde::Deserialize)]
    struct ClientData {
        #[serde(rename = "type")]
        _kind: String,
        challenge: String,
        origin: String,
        #[serde(default, rename = "crossOrigin")]
        cross_origin: Option<Json>,
        #[serde(default, rename = "topOrigin")]
        top_origin: Option<Json>,
    }
    let text = bytes(credential, "clientDataJSON")?;
    let data: ClientData = serde_json::from_slice(&text).map_err(|_| wrong("client_data"))?;
    decoded(&data.challenge)?;
    if Url::parse(&data.origin).is_ok_and(|url| url.origin().ascii_serialization() != data.origin) {
        return Err(wrong("origin"));
    }
    let framed = data.top_origin.is_some() || !matches!(data.cross_origin, None | Some(Json::Bool(false)));
    if framed { Err(wrong("cross_origin")) } else { Ok(()) }
}

/// The flags, and what follows RP ID hash, flags and counter.
fn head(data: &[u8]) -> Result<(Flags, &[u8]), Refusal> {
    let (head, rest) = data.split_at_checked(37).ok_or(wrong("authenticator_data"))?;
    let flags = Flags::of(head[32]);
    if flags.backed_up && !flags.backup_eligible {
        return Err(wrong("backup_state"));
    }
    Ok((flags, rest))
}

/// A map of extension outputs if and only if the flag says so, and nothing behind it.
fn extensions(flags: Flags, rest: &[u8]) -> Result<(), Refusal> {
    let rest = match flags.extended {
        false => rest,
        true => match cbor_item(rest)? {
            (Cbor::Map(_), rest) => rest,
            _ => return Err(wrong("authenticator_data")),
        },
    };
    if rest.is_empty() { Ok(()) } else { Err(wrong("authenticator_data")) }
}

/// WR-11: an offered algorithm, over a key of its own kind (RFC 9053, 2 and 7): ES256 on P-256, ES384 on P-384, RS256.
pub fn public_key(key: &Cbor) -> Result<(), Refusal> {
    let Cbor::Map(members) = key else { return Err(wrong("public_key")) };
    let number = |label: i128| match members.get(&Cbor::Integer(label)) {
        Some(Cbor::Integer(value)) => Some(*value),
        _ => None,
    };
    let (kind, algorithm, curve) = (number(1), number(3), number(-1));
    match (algorithm, kind, curve) {
        (Some(-7), Some(2), Some(1)) | (Some(-35), Some(2), Some(2)) | (Some(-257), Some(3), None) => Ok(()),
        _ => Err(wrong("algorithm")),
    }
}

/// The first CBOR item, and what follows it. The item must be as long as its shortest form: so no key occurs twice, since
/// of two readers each might take another.
pub fn cbor_item(bytes: &[u8]) -> Result<(Cbor, &[u8]), Refusal> {
    let mut reader = serde_cbor_2::Deserializer::from_slice(bytes);
    let item: Cbor = serde::Deserialize::deserialize(&mut reader).map_err(|_| wrong("cbor"))?;
    let (read, rest) = bytes.split_at_checked(reader.byte_offset()).ok_or(wrong("cbor"))?;
    let shortest = serde_cbor_2::to_vec(&item).map_err(|_| wrong("cbor"))?;
    if shortest.len() == read.len() { Ok((item, rest)) } else { Err(wrong("cbor")) }
}

fn bytes(credential: &Json, member: &str) -> Result<Vec<u8>, Refusal> {
    let Json::String(text) = &credential["response"][member] else { return Err(wrong("malformed")) };
    decoded(text)
}

fn decoded(text: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong("base64url"))
}

/// How the browser reached the authenticator: short lower-case words only, since they come back to browsers later.
fn transports(credential: &Json) -> Vec<String> {
    let Json::Array(list) = &credential["response"]["transports"] else { return Vec::new() };
    let word = |t: &&str| (1..=16).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    list.iter().filter_map(Json::as_str).filter(word).take(8).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each flag is the bit that the standard gives it (WebAuthn L3, 6.1), and no other.
    #[test]
    fn a_flag_is_its_own_bit() {
        for bit in 0..8 {
            let flags = Flags::of(1 << bit);
            let found = [flags.user_verified, flags.backup_eligible, flags.backed_up, flags.attested, flags.extended];
            assert_eq!(found, [2, 3, 4, 6, 7].map(|own| own == bit), "bit {bit}");
        }
    }
}
