//! Opaque tokens, and step-up JWTs with the keys that sign them.
//! Knows no row; what is kept of a token is its hash, what is kept of a signing key is sealed by the vault.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::model::{Detail, Id, Kind, Moment, Session, Timestamp};

/// By how many seconds another node's clock may be ahead that signed (J-04).
const SKEW: i64 = 60;
/// The `typ` of a step-up JWT (RFC 8725, 3.11).
pub const TYP: &str = "step-up+jwt";

/// A new opaque token: 256 random bits behind a prefix that tells people and scanners what it is.
pub fn opaque(prefix: &str, at: &Moment<'_>) -> Zeroizing<String> {
    Zeroizing::new(format!("{prefix}{}", at.token()))
}

/// A client token: it carries the id that it is bound to, and a secret of 256 bits.
pub struct ClientToken {
    /// The challenge or portal session that it opens.
    pub id: Id,
    /// The secret part, kept as a hash.
    pub secret: Zeroizing<String>,
}

impl ClientToken {
    /// The text for a challenge's or portal session's id.
    pub fn text(&self) -> String {
        let kind: u8 = if Id::parse(Kind::Portal, self.id.as_str()).is_some() { b'p' } else { b'c' };
        let mut bytes = vec![kind];
        bytes.extend(self.id.bytes());
        format!("ct_{}.{}", URL_SAFE_NO_PAD.encode(bytes), self.secret.as_str())
    }

    /// Reads what [`ClientToken::text`] wrote.
    pub fn parse(text: &str) -> Option<ClientToken> {
        let (head, secret) = text.strip_prefix("ct_")?.split_once('.')?;
        let head = URL_SAFE_NO_PAD.decode(head).ok()?;
        let (kind, id) = head.split_first()?;
        let kind = match kind {
            b'p' => Kind::Portal,
            b'c' => Kind::Challenge,
            _ => return None,
        };
        let id = Id::from_bytes(kind, id.try_into().ok()?);
        (secret.len() == 43).then(|| ClientToken { id, secret: Zeroizing::new(secret.to_owned()) })
    }
}

/// Digest of what the person saw: base64url SHA-256 of the details' canonical JSON (RFC 8785); `None` where nothing was shown.
///
/// Strings only, members declared in sorted order: serde_json writes exactly the canonical form.
pub fn context(details: &[Detail]) -> Option<String> {
    if details.is_empty() {
        return None;
    }
    let canonical = serde_json::to_vec(details).expect("strings are JSON");
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&canonical);
    Some(URL_SAFE_NO_PAD.encode(digest))
}

/// The S256 transformation of a PKCE verifier (RFC 7636, 4.2).
pub fn code_challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(<sha2::Sha256 as sha2::Digest>::digest(verifier.as_bytes()))
}

/// The claims of a step-up JWT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it: the public URL.
    pub iss: String,
    /// For whom it is meant.
    pub aud: Audience,
    /// The user.
    pub sub: String,
    /// This token's own id, the same when it is signed anew.
    pub jti: String,
    /// The step-up session.
    pub sid: String,
    /// Issued at, in seconds.
    pub iat: i64,
    /// Not before, in seconds.
    pub nbf: i64,
    /// Ends at, in seconds.
    pub exp: i64,
    /// Time of the proof, in seconds (OIDC Core 2).
    pub auth_time: i64,
    /// How strong the proof was.
    pub acr: String,
    /// How it was given.
    pub amr: Vec<String>,
    /// The one action that it allows.
    pub action: String,
    /// Digest of what the person saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<String>,
}

/// `aud`: one text or several (RFC 7519, 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Claims {
    /// The claims of a session.
    pub fn of(session: &Session, issuer: &str) -> Claims {
        let grant = &session.grant;
        Claims {
            iss: issuer.to_owned(),
            aud: match grant.audience.as_slice() {
                [] => Audience::One(session.rp_id.to_string()),
                [one] => Audience::One(one.clone()),
                many => Audience::Many(many.to_vec()),
            },
            sub: session.user_id.clone(),
            jti: format!("jwt_{}", session.id.digits().unwrap_or_default()),
            sid: session.id.to_string(),
            iat: session.created_at.seconds(),
            nbf: session.created_at.seconds(),
            exp: session.expires_at.seconds(),
            auth_time: grant.auth_time.seconds(),
            acr: grant.acr.as_str().to_owned(),
            amr: grant.amr.clone(),
            action: grant.action.clone(),
            ctx: grant.context.clone(),
        }
    }
}

/// A signing key as it is kept: the private part for sealing, the public part for all.
pub struct NewSigningKey {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// PKCS #8.
    pub private: Zeroizing<Vec<u8>>,
}

/// Makes a P-256 key. AWS-LC draws the key itself: it takes no random source from outside.
pub fn new_signing_key() -> NewSigningKey {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .expect("AWS-LC makes a P-256 key");
    let private = Zeroizing::new(document.as_ref().to_vec());
    let kid =
        public_key(&private).and_then(|jwk| jwk.common.key_id).expect("a key that was just made has a public part");
    NewSigningKey { kid, private }
}

/// A signing key or token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The key does not read as a P-256 key.
    #[error("a signing key does not read as a P-256 key")]
    Key,
    /// The token is not ours, altered, or run out.
    #[error("the token is not ours")]
    Foreign,
    /// The token names a key that is not known; it may be a new one.
    #[error("the token's key is not known")]
    KeyUnknown,
}

/// A key that signs from one time on, and whose public part is published until another.
pub struct SigningKey {
    kid: String,
    jwk: Jwk,
    decoding: DecodingKey,
    /// As it was read: the library would read it anew for each signature, which takes as long as to sign.
    pair: EcdsaKeyPair,
    /// The first part of every JWT that it signs.
    header: String,
    active_at: Option<Timestamp>,
    retired_at: Option<Timestamp>,
}

impl SigningKey {
    /// Reads a private key in PKCS #8. Without `active_at` it is published and signs nothing yet.
    pub fn read(
        private: &[u8],
        active_at: Option<Timestamp>,
        retired_at: Option<Timestamp>,
    ) -> Result<SigningKey, TokenError> {
        let pair = key_pair(private).ok_or(TokenError::Key)?;
        let jwk = public_key(private).ok_or(TokenError::Key)?;
        let kid = jwk.common.key_id.clone().ok_or(TokenError::Key)?;
        let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| TokenError::Key)?;
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(TYP.to_owned());
        header.kid = Some(kid.clone());
        Ok(SigningKey { kid, jwk, decoding, pair, header: encoded(&header), active_at, retired_at })
    }

    /// JWS, compact (RFC 7515, 3.1).
    fn sign(&self, claims: &Claims) -> Option<String> {
        let message = format!("{}.{}", self.header, encoded(claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).ok()?;
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn is_published(&self, now: Timestamp) -> bool {
        self.retired_at.is_none_or(|end| now < end)
    }
}

/// Signs step-up JWTs, and reads them back. May be given other keys while it is used.
#[derive(Default)]
pub struct Signer {
    issuer: String,
    keys: RwLock<Arc<Vec<SigningKey>>>,
}

impl Signer {
    /// A signer without keys.
    pub fn new(issuer: &str) -> Signer {
        Signer { issuer: issuer.to_owned(), ..Signer::default() }
    }

    /// The keys that there are from now on, oldest first.
    pub fn replace(&self, keys: Vec<SigningKey>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    fn keys(&self) -> Arc<Vec<SigningKey>> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The JWT of a session; `None` for a single-use session, which is judged here or not at all.
    ///
    /// It is signed by the key of this time, which is published for longer than any session lasts. Signed again later it is the
    /// same token under another signature: no claim tells when that was, and none lasts longer (RFC 7519, 4.1.7).
    pub fn sign(&self, session: &Session, now: Timestamp) -> Result<Option<String>, TokenError> {
        if session.grant.single_use {
            return Ok(None);
        }
        let keys = self.keys();
        let active = |key: &&SigningKey| key.active_at.is_some_and(|from| from <= now);
        let first = || keys.iter().filter(|key| key.active_at.is_some()).min_by_key(|key| key.active_at);
        let newest = keys.iter().filter(active).max_by_key(|key| key.active_at);
        let key = newest.or_else(first).ok_or(TokenError::Key)?;
        key.sign(&Claims::of(session, &self.issuer)).map(Some).ok_or(TokenError::Key)
    }

    /// The claims of a JWT of ours that has not run out; algorithm, type, key and issuer are checked, time against `now`.
    pub fn read(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Foreign)?;
        if header.typ.as_deref() != Some(TYP) {
            return Err(TokenError::Foreign);
        }
        let kid = header.kid.ok_or(TokenError::Foreign)?;
        let keys = self.keys();
        let key = keys.iter().find(|key| key.kid == kid).ok_or(TokenError::KeyUnknown)?;
        if !key.is_published(now) {
            return Err(TokenError::Foreign);
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.set_issuer(&[&self.issuer]);
        let read = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation);
        let claims = read.map_err(|_| TokenError::Foreign)?.claims;
        let in_time = (claims.nbf - SKEW..claims.exp).contains(&now.seconds());
        in_time.then_some(claims).ok_or(TokenError::Foreign)
    }

    /// The public keys that verifiers must know now.
    pub fn jwks(&self, now: Timestamp) -> JwkSet {
        let keys = self.keys();
        JwkSet { keys: keys.iter().filter(|key| key.is_published(now)).map(|key| key.jwk.clone()).collect() }
    }
}

/// A part of a JWT: base64url of JSON.
fn encoded(part: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).expect("headers and claims are JSON"))
}

fn key_pair(private: &[u8]) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private).ok()
}

fn public_key(private: &[u8]) -> Option<Jwk> {
    let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_der(private), Algorithm::ES256).ok()?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).ok()?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    jwk.common.key_operations = None::<Vec<KeyOperations>>;
    Some(jwk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::model::{Acr, Grant, MethodKind};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn session() -> Session {
        let at = Moment::new(NOW, &SystemRng);
        Session {
            id: Id::new(Kind::Session, &at),
            rp_id: Id::new(Kind::RelyingParty, &at),
            user_id: "u-42".to_owned(),
            grant: Grant {
                action: "login".to_owned(),
                acr: Acr::Aal2,
                amr: vec!["otp".to_owned()],
                method: MethodKind::Totp,
                auth_time: NOW,
                single_use: false,
                audience: Vec::new(),
                binding: None,
                context: None,
                challenge_id: Id::new(Kind::Challenge, &at),
            },
            factor_id: None,
            created_at: NOW,
            expires_at: NOW.plus_seconds(600),
            ended_at: None,
            added_at: None,
            removed_at: None,
        }
    }

    fn signer() -> Signer {
        let signer = Signer::new("https://mfa.example.com");
        signer.replace(vec![key(0, None)]);
        signer
    }

    fn key(active_at: i64, retired_at: Option<i64>) -> SigningKey {
        let time = |seconds| NOW.plus_seconds(seconds);
        SigningKey::read(&new_signing_key().private, Some(time(active_at)), retired_at.map(time)).expect("a new key")
    }

    /// S-04, J-04.
    #[test]
    fn a_jwt_reads_back_until_it_runs_out() {
        let signer = signer();
        let token = signer.sign(&session(), NOW).expect("signs").expect("not single-use");
        let claims = signer.read(&token, NOW).expect("reads");
        assert_eq!(claims.exp - claims.auth_time, 600);
        assert_eq!(claims.aud, Audience::One(session_rp(&claims)));
        assert!(signer.read(&token, NOW.plus_seconds(599)).is_ok());
        assert!(signer.read(&token, NOW.plus_seconds(600)).is_err());
        assert!(signer.read(&token, NOW.plus_seconds(-60)).is_ok(), "by a clock that is behind");
        assert!(signer.read(&token, NOW.plus_seconds(-61)).is_err());
    }

    fn session_rp(claims: &Claims) -> String {
        match &claims.aud {
            Audience::One(one) => one.clone(),
            Audience::Many(many) => many.join(" "),
        }
    }

    /// J-01, J-02, J-03, J-10.
    #[test]
    fn a_forged_jwt_is_foreign() {
        let signer = signer();
        let token = signer.sign(&session(), NOW).expect("signs").expect("not single-use");
        let parts: Vec<&str> = token.split('.').collect();
        let with_header = |header: &str| format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), parts[1], parts[2]);
        let kid = signer.jwks(NOW).keys[0].common.key_id.clone().expect("a kid");
        let zero = URL_SAFE_NO_PAD.encode([0u8; 64]);
        for forged in [
            with_header(&format!(r#"{{"alg":"none","typ":"{TYP}","kid":"{kid}"}}"#)),
            with_header(&format!(r#"{{"alg":"HS256","typ":"{TYP}","kid":"{kid}"}}"#)),
            with_header(&format!(r#"{{"alg":"ES256","typ":"JWT","kid":"{kid}"}}"#)),
            with_header(&format!(r#"{{"alg":"ES256","typ":"{TYP}","kid":"../../etc/passwd"}}"#)),
            with_header(&format!(r#"{{"alg":"ES256","typ":"{TYP}"}}"#)),
            format!("{}.{}.{zero}", parts[0], parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            String::new(),
            self::signer().sign(&session(), NOW).expect("signs").expect("not single-use"),
        ] {
            assert!(signer.read(&forged, NOW).is_err(), "{forged}");
        }
        let other = Signer { issuer: "https://other.example".to_owned(), keys: RwLock::new(signer.keys()) };
        assert!(matches!(other.read(&token, NOW), Err(TokenError::Foreign)), "the same key, and another issuer");
    }

    /// J-02, J-03: a good signature under a header of another type is of no use, nor is a key that the header brings along.
    #[test]
    fn a_header_decides_neither_the_type_nor_the_key() {
        let (signer, attacker) = (signer(), key(0, None));
        let keys = signer.keys();
        let token = signer.sign(&session(), NOW).expect("signs").expect("not single-use");
        let claims = token.split('.').nth(1).expect("claims");
        let header = serde_json::json!({"alg": "ES256", "typ": TYP, "kid": keys[0].kid});
        assert!(signer.read(&signed(&keys[0], &header, claims), NOW).is_ok(), "all that differs below is the header");
        for typ in ["JWT", "at+jwt", ""] {
            let mut other = header.clone();
            other["typ"] = typ.into();
            let forged = signed(&keys[0], &other, claims);
            assert!(matches!(signer.read(&forged, NOW), Err(TokenError::Foreign)), "{typ}");
        }
        let untyped = serde_json::json!({"alg": "ES256", "kid": keys[0].kid});
        assert!(matches!(signer.read(&signed(&keys[0], &untyped, claims), NOW), Err(TokenError::Foreign)));

        let mut embedded = header.clone();
        embedded["jwk"] = serde_json::to_value(&attacker.jwk).expect("JSON");
        assert!(signer.read(&signed(&keys[0], &embedded, claims), NOW).is_ok(), "nobody looks at it");
        for header in [&header, &embedded] {
            let forged = signed(&attacker, header, claims);
            assert!(matches!(signer.read(&forged, NOW), Err(TokenError::Foreign)), "{header}");
        }
        embedded["kid"] = attacker.kid.clone().into();
        let unknown = signed(&attacker, &embedded, claims);
        assert!(matches!(signer.read(&unknown, NOW), Err(TokenError::KeyUnknown)));
    }

    /// Claims under any header, signed by this key.
    fn signed(key: &SigningKey, header: &serde_json::Value, claims: &str) -> String {
        let message = format!("{}.{claims}", encoded(header));
        let signature = key.pair.sign(&SystemRandom::new(), message.as_bytes()).expect("signs");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// J-07: the next key is published before its first use, the last one until its last token has run out.
    #[test]
    fn keys_take_turns_without_a_gap() {
        let signer = Signer::new("https://mfa.example.com");
        signer.replace(vec![key(-1000, Some(1300)), key(600, None)]);
        let kids = |now| signer.jwks(NOW.plus_seconds(now)).keys.len();
        let kid_of = |signed: i64| {
            let token = signer.sign(&session(), NOW.plus_seconds(signed)).expect("signs").expect("not single-use");
            let place = signer.keys().iter().position(|k| Some(&k.kid) == decode_kid(&token).as_ref());
            (place.expect("a key of its own"), token)
        };
        assert_eq!((kids(0), kids(1299), kids(1300)), (2, 2, 1));
        assert_eq!((kid_of(599).0, kid_of(600).0, kid_of(-2000).0), (0, 1, 0));
        let old = kid_of(0).1;
        assert!(signer.read(&old, NOW.plus_seconds(599)).is_ok());
        signer.replace(vec![key(0, None)]);
        assert!(matches!(signer.read(&old, NOW), Err(TokenError::KeyUnknown)));
    }

    fn decode_kid(token: &str) -> Option<String> {
        jsonwebtoken::decode_header(token).ok()?.kid
    }

    /// J-05, J-06.
    #[test]
    fn the_published_set_holds_public_members_only() {
        let set = serde_json::to_value(signer().jwks(NOW)).expect("JSON");
        let key = &set["keys"][0];
        for member in ["kid", "x", "y"] {
            assert!(key[member].is_string(), "{member}: {key}");
        }
        assert_eq!(
            (key["use"].as_str(), key["alg"].as_str(), key["crv"].as_str()),
            (Some("sig"), Some("ES256"), Some("P-256"))
        );
        assert!(key.get("d").is_none());
    }

    /// J-09.
    #[test]
    fn a_single_use_session_has_no_jwt() {
        let mut session = session();
        session.grant.single_use = true;
        assert_eq!(signer().sign(&session, NOW).expect("signs"), None);
    }

    /// RFC 8785: the digest is over canonical JSON.
    #[test]
    fn the_context_is_the_digest_of_canonical_json() {
        let details = [Detail { label: "New \"IBAN\"".to_owned(), value: "…1234\n\u{1}".to_owned() }];
        let canonical = "[{\"label\":\"New \\\"IBAN\\\"\",\"value\":\"…1234\\n\\u0001\"}]";
        let expected = URL_SAFE_NO_PAD.encode(<sha2::Sha256 as sha2::Digest>::digest(canonical.as_bytes()));
        assert_eq!(context(&details), Some(expected));
        assert_eq!(context(&[]), None);
    }

    /// RFC 7636, appendix B.
    #[test]
    fn the_code_challenge_is_that_of_the_rfc() {
        assert_eq!(
            code_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    /// S-02.
    #[test]
    fn an_opaque_token_is_256_random_bits_behind_its_prefix() {
        let at = Moment::new(NOW, &SystemRng);
        let tokens = [opaque("st_", &at), opaque("st_", &at)];
        for token in &tokens {
            let random = URL_SAFE_NO_PAD.decode(token.strip_prefix("st_").expect("the prefix")).expect("base64url");
            assert_eq!(random.len(), 32);
        }
        assert_ne!(tokens[0], tokens[1]);
    }

    #[test]
    fn a_client_token_names_what_it_opens() {
        let at = Moment::new(NOW, &SystemRng);
        for kind in [Kind::Challenge, Kind::Portal] {
            let token = ClientToken { id: Id::new(kind, &at), secret: Zeroizing::new(at.token()) };
            let read = ClientToken::parse(&token.text()).expect("its own text");
            assert_eq!((read.id, read.secret), (token.id, token.secret));
        }
        for bad in ["", "ct_", "ct_.", "ct_abc", "st_abc.def"] {
            assert!(ClientToken::parse(bad).is_none(), "{bad}");
        }
    }
}
