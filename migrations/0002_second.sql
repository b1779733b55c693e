-- What the first schema did not have. It only adds, and drops indexes: the release before runs on it.

-- Work that one node at a time does: who does it, and until when.
create table leases (
  name text primary key,
  holder text not null,
  expires_at bigint not null
);

-- What has run out is found by id, which sorts by time: no index over ends has to be kept with every verification.
drop index challenges_expiry;
drop index sessions_expiry;
drop index portal_sessions_expiry;

-- When a budget was last drawn on; null where a release that does not know it made the row.
alter table send_budgets add column used_at bigint;
create index send_budgets_age on send_budgets (used_at) where used_at is not null;

-- A key of the ring is known to every node before it is used; null: at once. The meta row is what two changes of the ring contend for.
alter table key_ring add column active_from bigint;
insert into meta (name, value) values ('key_ring_version', '0');

-- Guess budgets, by lane: '' for all browsers that never passed, 'enrolment' for first proofs of pending factors, else the keyed
-- hash of a device that passed, last at seen_at. state is JSON that no statement looks into, paused_until the end of its pauses.
create table throttle_lanes (
  rp_id text not null,
  user_id text not null,
  lane text not null,
  version bigint not null,
  state text not null,
  seen_at bigint,
  paused_until bigint,
  primary key (rp_id, user_id, lane)
);
create index throttle_lanes_paused on throttle_lanes (paused_until) where paused_until is not null;
create index throttle_lanes_seen on throttle_lanes (seen_at) where seen_at is not null;

-- Takes the place of throttles, which a later release drops. Guesses that were counted stay counted, and pauses go on.
insert into throttle_lanes (rp_id, user_id, lane, version, state, paused_until)
select rp_id, user_id, '', 1,
  '{"pauses":{"totp":{"wrong":' || cast(coalesce(max(case when method = 'totp' then wrong + enrolment_wrong end), 0) as text)
    || ',"until":' || coalesce(cast(max(case when method = 'totp' then paused_until end) as text), 'null')
    || '},"sms":{"wrong":' || cast(coalesce(max(case when method = 'sms' then wrong + enrolment_wrong end), 0) as text)
    || ',"until":' || coalesce(cast(max(case when method = 'sms' then paused_until end) as text), 'null')
    || '}},"since":' || cast(sum(wrong) as text) || '}',
  max(paused_until)
from throttles group by rp_id, user_id;

-- Answers kept under an Idempotency-Key. id is a keyed hash of caller, method, path and key, body_hash one of the body.
-- answer is null while a text is on its way; whole is the answer with its secrets, and goes after ten minutes.
create table kept_answers (
  rp_id text not null,
  id text not null,
  user_id text not null,
  turn text not null,
  body_hash bytea not null,
  answer bytea,
  whole bytea,
  created_at bigint not null,
  primary key (rp_id, id)
);
create index kept_answers_user on kept_answers (rp_id, user_id);
create index kept_answers_age on kept_answers (created_at);
create index kept_answers_whole on kept_answers (created_at) where whole is not null;

-- Audit events are numbered and chained after they were committed, by a sealer outside the calls that wrote them. person is a
-- salted digest of whom an event tells of; the salt goes when the user is erased, and the chain stays whole.
alter table events add column sequence bigint;
alter table events add column salt bytea;
alter table events add column person bytea;
alter table events add column hash bytea;
create unique index events_sequence on events (rp_id, sequence) where sequence is not null;
create index events_user on events (rp_id, user_id, sequence) where sequence is not null;
create index events_unsealed on events (rp_id, at, id) where sequence is null;

-- Where each chain ends, and the proof that this engine wrote so: without the key ring nobody can move an end back.
create table chain_heads (
  rp_id text primary key,
  sequence bigint not null,
  hash bytea not null,
  sealed_at bigint not null,
  mac bytea not null
);
