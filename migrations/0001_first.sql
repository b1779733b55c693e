-- The first schema. One text for SQLite and PostgreSQL: TEXT, BIGINT (times in unix milliseconds) and BYTEA only;
-- nullable times instead of booleans; every key leads with the relying party, then the user.

-- Facts about the schema itself: oldest_release names the oldest binary that may run on it.
create table meta (
  name text primary key,
  value text not null
);
insert into meta (name, value) values ('oldest_release', '0.1.0');

-- Keys under the master key. The highest id of a purpose is the current one.
create table key_ring (
  id bigint primary key,
  purpose text not null,
  wrapped bytea not null,
  created_at bigint not null
);

-- Keys that sign step-up JWTs. A key is published from the start, signs from active_at, and no longer after retired_at.
create table signing_keys (
  kid text primary key,
  sealed bytea not null,
  created_at bigint not null,
  active_at bigint,
  retired_at bigint
);

create table relying_parties (
  id text primary key,
  name text not null unique,
  host text not null,
  mode text not null,
  origins text not null,
  return_urls text not null,
  created_at bigint not null
);

create table api_keys (
  rp_id text not null references relying_parties (id),
  id text not null,
  hash bytea not null unique,
  hint text not null,
  scopes text not null,
  created_at bigint not null,
  expires_at bigint,
  last_used_at bigint,
  revoked_at bigint,
  primary key (rp_id, id)
);

create table users (
  rp_id text not null references relying_parties (id),
  user_id text not null,
  handle bytea not null,
  display_name text,
  login_hint text,
  locale text,
  created_at bigint not null,
  primary key (rp_id, user_id)
);

-- A factor is pending until activated_at. details may be shown, sealed may not.
create table factors (
  rp_id text not null,
  user_id text not null,
  id text not null,
  kind text not null,
  name text not null,
  details text not null,
  created_at bigint not null,
  activated_at bigint,
  expires_at bigint not null,
  last_used_at bigint,
  last_step bigint not null,
  version bigint not null,
  sealed bytea not null,
  credential_id text,
  primary key (rp_id, user_id, id)
);
create unique index factors_name on factors (rp_id, user_id, name);
create unique index factors_credential on factors (rp_id, credential_id) where credential_id is not null;
create index factors_pending on factors (expires_at) where activated_at is null;

-- terms and proof are JSON that no statement looks into.
create table challenges (
  rp_id text not null,
  user_id text not null,
  id text not null,
  terms text not null,
  status text not null,
  attempts_left bigint not null,
  created_at bigint not null,
  expires_at bigint not null,
  proof text,
  link_hash bytea,
  link_opened_at bigint,
  browser_hash bytea,
  client_token_hash bytea,
  code_hash bytea,
  code_expires_at bigint,
  exchanged_at bigint,
  primary key (rp_id, user_id, id)
);
create unique index challenges_id on challenges (id);
create index challenges_expiry on challenges (expires_at);

-- What was asked and awaits its response: one ceremony or one sent code per owner (challenge or pending factor) and method.
create table prompts (
  rp_id text not null,
  user_id text not null,
  owner_id text not null,
  method text not null,
  id text not null,
  factor_id text,
  sealed bytea not null,
  sends bigint not null,
  sent_at bigint not null,
  expires_at bigint not null,
  primary key (rp_id, user_id, owner_id, method)
);
create index prompts_expiry on prompts (expires_at);

create table throttles (
  rp_id text not null,
  user_id text not null,
  method text not null,
  version bigint not null,
  wrong bigint not null,
  enrolment_wrong bigint not null,
  paused_until bigint,
  primary key (rp_id, user_id, method)
);

-- At most one active and one unconfirmed set a user; the partial indexes hold that against parallel makers.
create table recovery_sets (
  rp_id text not null,
  user_id text not null,
  id text not null,
  salt bytea not null,
  pepper bigint not null,
  created_at bigint not null,
  activated_at bigint,
  primary key (rp_id, user_id, id)
);
create unique index recovery_sets_active on recovery_sets (rp_id, user_id) where activated_at is not null;
create unique index recovery_sets_unconfirmed on recovery_sets (rp_id, user_id) where activated_at is null;

create table recovery_codes (
  rp_id text not null,
  user_id text not null,
  set_id text not null,
  hash bytea not null,
  used_at bigint,
  primary key (rp_id, user_id, set_id, hash)
);

create table sessions (
  rp_id text not null,
  user_id text not null,
  id text not null,
  token_hash bytea not null,
  granted text not null,
  factor_id text,
  created_at bigint not null,
  expires_at bigint not null,
  ended_at bigint,
  added_at bigint,
  removed_at bigint,
  primary key (rp_id, user_id, id)
);
create unique index sessions_token on sessions (token_hash);
create unique index sessions_id on sessions (id);
create index sessions_expiry on sessions (expires_at);

create table portal_sessions (
  rp_id text not null,
  user_id text not null,
  id text not null,
  flow text not null,
  return_url text,
  created_at bigint not null,
  expires_at bigint not null,
  link_hash bytea not null,
  link_opened_at bigint,
  browser_hash bytea,
  client_token_hash bytea not null,
  session_id text,
  factor_id text,
  primary key (rp_id, user_id, id)
);
create unique index portal_sessions_id on portal_sessions (id);
create index portal_sessions_expiry on portal_sessions (expires_at);

-- Texts: written before a gateway is asked. Holds neither number nor text.
create table messages (
  rp_id text not null,
  user_id text not null,
  id text not null,
  number_hash text not null,
  country text,
  created_at bigint not null,
  provider text,
  accepted_at bigint,
  failed_at bigint,
  primary key (rp_id, user_id, id)
);
create index messages_age on messages (created_at);

create table send_budgets (
  rp_id text not null,
  budget text not null,
  version bigint not null,
  day bigint not null,
  sent bigint not null,
  recent text not null,
  primary key (rp_id, budget)
);

create table events (
  rp_id text not null,
  id text not null,
  at bigint not null,
  kind text not null,
  actor text not null,
  user_id text,
  method text,
  factor_id text,
  challenge_id text,
  session_id text,
  outcome text not null,
  reason text,
  client text,
  request_id text,
  primary key (rp_id, id)
);
