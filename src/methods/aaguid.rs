//! Which product made a passkey, from the AAGUID that it named at registration: for display and for a first name only.
//!
//! An AAGUID is the authenticator's own word, unproven without attestation, so nothing may be decided by it. The table
//! holds single facts that were checked against the FIDO metadata, the makers' own pages or the community's list; what is
//! missing here has no name and works the same. It must not know how a ceremony goes.

use uuid::Uuid;

/// AAGUID as a big-endian number, and the name that people know the product by. Sorted by number.
const PROVIDERS: &[(u128, &str)] = &[
    (0x08987058_cadc_4b81_b6e1_30de50dcbe96, "Windows Hello"),
    (0x0ea242b4_43c4_4a1b_8b17_dd6d0b6baec6, "Keeper"),
    (0x149a2021_8ef6_4133_96b8_81f8d5b7f1f5, "Security Key NFC by Yubico"),
    (0x17290f1e_c212_34d0_1423_365d729f09d9, "Thales"),
    (0x19083c3d_8383_4b18_bc03_8f1c9ab2fd1b, "YubiKey 5"),
    (0x234cd403_35a2_4cc2_8015_77ea280c77f5, "Feitian ePass NFC"),
    (0x2cd2f727_f6ca_44da_8f48_5c2e5da000a2, "Nitrokey 3"),
    (0x2fc0579f_8113_47ea_b116_bb5a8db9202a, "YubiKey 5 NFC"),
    (0x42b4fb4a_2866_43b2_9bf7_6c6669c2e5d3, "Google Titan Security Key"),
    (0x50726f74_6f6e_5061_7373_50726f746f6e, "Proton Pass"),
    (0x531126d6_e717_415c_9320_3d9aa6981239, "Dashlane"),
    (0x53414d53_554e_4700_0000_000000000000, "Samsung Pass"),
    (0x6028b017_b1d4_4c02_b4b3_afcdafc96bb2, "Windows Hello"),
    (0x66a0ccb3_bd6a_191f_ee06_e375c50b9846, "Thales"),
    (0x6d44ba9b_f6ec_2e49_b930_0c8fe920cb73, "Security Key NFC by Yubico"),
    (0x73bb0cd4_e502_49b8_9c6f_b59445bf720b, "YubiKey 5 FIPS"),
    (0x77010bd7_212a_4fc9_b236_d2ca5e9d4084, "Feitian BioPass"),
    (0x771b48fd_d3d4_4f74_9232_fc157ab0507a, "Edge on Mac"),
    (0x833b721a_ff5f_4d00_bb2e_bdda3ec01e29, "Feitian ePass"),
    (0x8836336a_f590_0921_301d_46427531eee6, "Thales"),
    (0x8876631b_d4a0_427f_5773_0ec71c9e0279, "SoloKeys Solo"),
    (0x8976631b_d4a0_427f_5773_0ec71c9e0279, "SoloKeys Solo Tap"),
    (0x9a03e537_4cbe_4a01_b2e2_242e0dd9a59b, "Nitrokey Passkey"),
    (0x9ddd1817_af5a_4672_a2b9_3e3dd95000a9, "Windows Hello"),
    (0xa02167b9_ae71_4ac7_9a07_06432ebb6f1c, "YubiKey 5Ci"),
    (0xa25342c0_3cdc_4414_8e46_f4807fca511c, "YubiKey 5 NFC"),
    (0xa4e9fc6d_4cbe_4758_b8ba_37598bb5bbaa, "Security Key NFC by Yubico"),
    (0xab32f0c6_2239_afbb_c470_d2ef4e254db7, "Token2"),
    (0xadce0002_35bc_c60a_648b_0b25f1f05503, "Chrome on Mac"),
    (0xb6ede29c_3772_412c_8a78_539c1f4c62d2, "Feitian BioPass"),
    (0xb78a0a55_6ef8_d246_a042_ba0f6d55050c, "LastPass"),
    (0xb7d3f68e_88a6_471e_9ecf_2df26d041ede, "Security Key NFC by Yubico"),
    (0xb84e4048_15dc_4dd0_8640_f4f60813c8af, "NordPass"),
    (0xb92c3f9a_c014_4056_887f_140a2501163b, "Security Key by Yubico"),
    (0xbada5566_a7aa_401f_bd96_45619a55120d, "1Password"),
    (0xc1f9a0bc_1dd2_404a_b27f_8e29047a43fd, "YubiKey 5 NFC FIPS"),
    (0xc5ef55ff_ad9a_4b9f_b580_adebafe026d0, "YubiKey 5Ci"),
    (0xcb69481e_8ff7_4039_93ec_0a2729a154a8, "YubiKey 5"),
    (0xcd69adb5_3c7a_deb9_3177_6800ea6cb72a, "Thales"),
    (0xd3452668_01fd_4c12_926c_83a4204853aa, "Microsoft Password Manager"),
    (0xd548826e_79b4_db40_a3d8_11116f7e8349, "Bitwarden"),
    (0xd7781e5d_e353_46aa_afe2_3ca49f13332a, "YubiKey 5 NFC"),
    (0xd8522d9f_575b_4866_88a9_ba99fa02f35b, "YubiKey Bio"),
    (0xdd4ec289_e01d_41c9_bb89_70fa845d4bf2, "iCloud Keychain (managed)"),
    (0xe77e3c64_05e3_428b_8824_0cbeb04b829d, "Security Key NFC by Yubico"),
    (0xea9b8d66_4d01_1d21_3ce4_b6b48cb575d4, "Google Password Manager"),
    (0xeabb46cc_e241_80bf_ae9e_96fa6d2975cf, "Token2 PIN+"),
    (0xec99db19_cd1f_4c06_a2a9_940f17a6a30b, "Nitrokey 3"),
    (0xee041bce_25e5_4cdb_8f86_897fd6418464, "Feitian ePass NFC"),
    (0xee882879_721c_4913_9775_3dfcce97072a, "YubiKey 5"),
    (0xf3809540_7f14_49c1_a8b3_8f813b225541, "Enpass"),
    (0xf8a011f3_8c0a_4d15_8006_17111f9edc7d, "Security Key by Yubico"),
    (0xfa2b99dc_9e39_4257_8f92_4a30d23c4118, "YubiKey 5 NFC"),
    (0xfbfc3007_154e_4ecc_8c0b_6e020557d7bd, "iCloud Keychain"),
    (0xfdb141b2_5d84_443e_8a35_4698c205a502, "KeePassXC"),
    (0xff4dac45_ede8_4ec2_aced_cf66103f4335, "YubiKey 5"),
];

/// The product's name, where we know it.
///
/// `aaguid` is the hyphenated lower-case text form (`ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4`); any other form is unknown,
/// and so is the one of zeros, by which an authenticator declines to say (WebAuthn Level 3, 6.5.1).
pub fn provider_name(aaguid: &str) -> Option<&'static str> {
    // The library reads other forms of a UUID too.
    let number = Uuid::try_parse(aaguid).ok().filter(|id| id.to_string() == aaguid)?.as_u128();
    let place = PROVIDERS.binary_search_by_key(&number, |(known, _)| *known).ok()?;
    Some(PROVIDERS[place].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_products_have_their_names() {
        for (aaguid, name) in [
            ("ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4", "Google Password Manager"),
            ("fbfc3007-154e-4ecc-8c0b-6e020557d7bd", "iCloud Keychain"),
            ("08987058-cadc-4b81-b6e1-30de50dcbe96", "Windows Hello"),
            ("bada5566-a7aa-401f-bd96-45619a55120d", "1Password"),
            ("53414d53-554e-4700-0000-000000000000", "Samsung Pass"),
            ("2fc0579f-8113-47ea-b116-bb5a8db9202a", "YubiKey 5 NFC"),
        ] {
            assert_eq!(provider_name(aaguid), Some(name), "{aaguid}");
        }
    }

    #[test]
    fn every_entry_is_found_by_its_text_form() {
        for (number, name) in PROVIDERS {
            let digits = format!("{number:032x}");
            let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            assert_eq!(provider_name(&parts.join("-")), Some(*name));
        }
    }

    #[test]
    fn the_table_is_sorted_and_names_each_aaguid_once() {
        assert!(PROVIDERS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn names_are_plain_and_short() {
        for (_, name) in PROVIDERS {
            assert!(!name.is_empty() && name.len() <= 40 && name.is_ascii() && name.trim() == *name, "{name:?}");
        }
    }

    #[test]
    fn an_authenticator_that_declines_to_say_has_no_name() {
        assert_eq!(provider_name("00000000-0000-0000-0000-000000000000"), None);
        assert!(PROVIDERS.iter().all(|(number, _)| *number != 0));
    }

    #[test]
    fn other_forms_and_unknown_products_have_no_name() {
        for text in [
            "",
            "ea9b8d66",
            "ea9b8d664d011d213ce4b6b48cb575d4",
            "EA9B8D66-4D01-1D21-3CE4-B6B48CB575D4",
            "{ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4}",
            "ea9b8d66-4d01-1d21-3ce4-b6b48cb575d",
            "ea9b8d66-4d01-1d21-3ce4-b6b48cb575d45",
            "ea9b8d6-64d01-1d21-3ce4-b6b48cb575d4",
            "ea9b8d66-4d01-1d21-3ce4-b6b48cb575g4",
            "ea9b8d66+4d01-1d21-3ce4-b6b48cb575d4",
            "ea9b8d66-4d01-1d21-3ce4-b6b48cb57\u{e9}4",
            "01020304-0506-0708-0102-030405060708",
        ] {
            assert_eq!(provider_name(text), None, "{text:?}");
        }
    }
}
