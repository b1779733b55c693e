//! The first name of a passkey: its product and the device, so that a list of several can be told apart. Browsers say both of
//! themselves, unproven; the words are our own.

use crate::model::{Details, Factor};

/// Devices by what a browser's name for itself holds; the first that fits.
const DEVICES: [(&str, &str); 6] = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "Chromebook"),
    ("Windows", "Windows"),
    ("Linux", "Linux"),
];

/// `iCloud Keychain · iPhone`; the device only where it is the one that the page was open on. `None` of what is no passkey, or where
/// neither is known.
pub fn first_name(factor: &Factor, attachment: Option<&str>, agent: &str) -> Option<String> {
    let Details::Webauthn(details) = &factor.details else { return None };
    let device = device(agent).filter(|_| attachment == Some("platform") && !details.is_security_key());
    match (&details.provider_name, device) {
        (Some(provider), Some(device)) if !provider.contains(device) => Some(format!("{provider} · {device}")),
        (Some(provider), _) => Some(provider.clone()),
        (None, Some(device)) => Some(format!("Passkey · {device}")),
        (None, None) => details.is_security_key().then(|| "Security key".to_owned()),
    }
}

fn device(agent: &str) -> Option<&'static str> {
    if agent.contains("Macintosh") {
        // Safari on an iPad says that it runs on a Mac.
        let is_sure = agent.contains("Chrome/") || agent.contains("Firefox/");
        return Some(if is_sure { "Mac" } else { "Mac or iPad" });
    }
    DEVICES.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Id, Kind, MethodKind, Timestamp, WebauthnDetails};

    fn passkey(provider: Option<&str>, transports: &[&str]) -> Factor {
        let details = Details::Webauthn(WebauthnDetails {
            provider_name: provider.map(str::to_owned),
            transports: transports.iter().map(|t| (*t).to_owned()).collect(),
            ..WebauthnDetails::default()
        });
        let (id, time) = (Id::from_bytes(Kind::Factor, [0; 16]), Timestamp(0));
        Factor { activated_at: Some(time), ..Factor::new(id, "u", MethodKind::Webauthn, details, time, time) }
    }

    const PHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) Version/18.4 Mobile Safari/604.1";
    const LAPTOP: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0.0.0 Safari/537.36";
    const TABLET: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/18.4 Safari/605.1.15";

    #[test]
    fn a_passkey_is_named_after_what_holds_it() {
        for (provider, transports, attachment, agent, name) in [
            (Some("iCloud Keychain"), "internal", "platform", PHONE, Some("iCloud Keychain · iPhone")),
            (Some("iCloud Keychain"), "internal", "platform", TABLET, Some("iCloud Keychain · Mac or iPad")),
            (Some("Windows Hello"), "internal", "platform", LAPTOP, Some("Windows Hello")),
            // The phone beside the laptop holds it.
            (Some("Google Password Manager"), "hybrid", "cross-platform", LAPTOP, Some("Google Password Manager")),
            (Some("YubiKey 5"), "usb", "cross-platform", LAPTOP, Some("YubiKey 5")),
            (None, "usb", "cross-platform", LAPTOP, Some("Security key")),
            (None, "internal", "platform", LAPTOP, Some("Passkey · Windows")),
            (None, "internal", "platform", "curl/8", None),
            (None, "hybrid", "cross-platform", LAPTOP, None),
        ] {
            let given = first_name(&passkey(provider, &[transports]), Some(attachment), agent);
            assert_eq!(given.as_deref(), name, "{provider:?} {agent}");
        }
    }
}
