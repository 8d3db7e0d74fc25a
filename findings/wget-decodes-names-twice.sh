#!/bin/sh
# GNU Wget 1.21.3 (Debian 12, 1.21.3-1+deb12u1) decodes the escapes of a URL twice for the name of the file.
#
# "50%.txt" and "50%25.txt" are in a listing as 50%25.txt and 50%2525.txt. Guess: `wget -r` makes two files of those
# names, as RFC 3986 section 2.4 has it (nothing is decoded more than once). It makes one, "50%.txt", with the contents
# of whichever came last: the other is lost without a word, and the exit status is 0. wget2 1.99.1 keeps them apart.
set -eu
place=$(mktemp -d)
server=
trap 'kill $server; rm -rf "$place"' EXIT
cd "$place"
apt-get download -q wget=1.21.3-1+deb12u1
dpkg -x wget_*.deb wget
mkdir root
echo one >"root/50%.txt"
echo two >"root/50%25.txt"
python3 -u -m http.server --bind 127.0.0.1 --directory root 0 >log 2>&1 &
server=$!
until port=$(grep -o 'port [0-9]*' log); do sleep 0.1; done
wget/usr/bin/wget -q -r -nH --no-proxy -R 'index.html*' -P got "http://127.0.0.1:${port#port }/"
ls got
[ "$(ls got)" = "50%.txt" ]
