#!/bin/sh
# lftp 4.9.2 (Debian 12, 4.9.2-2+b1): `mirror` of an HTTP listing leaves out names that begin with "~".
#
# Guess: a link "~tilde.txt" is mirrored like "plain.txt" beside it, for a tilde is an ordinary character of a reference
# (RFC 3986 section 2.3: unreserved). It is left out without a word, and the exit status is 0. The listing is Python's
# http.server's; with nginx's autoindex, and with the name written as %7Etilde.txt, it is the same.
set -eu
place=$(mktemp -d)
server=
trap 'kill $server; rm -rf "$place"' EXIT
cd "$place"
apt-get download -q lftp=4.9.2-2+b1
dpkg -x lftp_*.deb lftp
mkdir root
echo one >root/plain.txt
echo two >"root/~tilde.txt"
python3 -u -m http.server --bind 127.0.0.1 --directory root 0 >log 2>&1 &
server=$!
until port=$(grep -o 'port [0-9]*' log); do sleep 0.1; done
LD_LIBRARY_PATH=$(echo lftp/usr/lib/*/) lftp/usr/bin/lftp -c "mirror http://127.0.0.1:${port#port }/ got"
ls got
[ "$(ls got)" = plain.txt ]
