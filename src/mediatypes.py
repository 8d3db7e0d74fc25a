"""Media types by file extension, where the standard library lacks them or has others than browsers and IANA do."""

_TABLE = """
application/atom+xml atom
application/dash+xml mpd
application/epub+zip epub
application/geo+json geojson
application/gzip gz tgz
application/java-archive jar war ear
application/json map
application/jsonl jsonl ndjson
application/ld+json jsonld
application/mac-binhex40 hqx
application/manifest+json webmanifest
application/mathml+xml mml
application/rss+xml rss
application/rtf rtf
application/ttml+xml ttml
application/vnd.android.package-archive apk
application/vnd.apache.arrow.file arrow
application/vnd.apache.parquet parquet
application/vnd.apple.pkpass pkpass
application/vnd.debian.binary-package deb
application/vnd.flatgeobuf fgb
application/vnd.google-earth.kml+xml kml
application/vnd.google-earth.kmz kmz
application/vnd.mapbox-vector-tile mvt
application/vnd.ms-fontobject eot
application/vnd.oasis.opendocument.graphics odg
application/vnd.oasis.opendocument.presentation odp
application/vnd.oasis.opendocument.spreadsheet ods
application/vnd.oasis.opendocument.text odt
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx
application/vnd.palm pdb prc
application/vnd.pmtiles pmtiles
application/vnd.rar rar
application/vnd.wap.wmlc wmlc
application/wasm wasm
application/x-7z-compressed 7z
application/x-bzip2 bz2
application/x-cocoa cco
application/x-java-archive-diff jardiff
application/x-java-jnlp-file jnlp
application/x-makeself run
application/x-perl pl pm
application/x-plist plist
application/x-redhat-package-manager rpm
application/x-sea sea
application/x-stuffit sit
application/x-tcl tk
application/x-x509-ca-cert crt der pem
application/x-xpinstall xpi
application/x-xz xz
application/xhtml+xml xhtml
application/xslt+xml xslt
application/xspf+xml xspf
application/yaml yaml yml
application/zip whl
application/zstd zst
audio/aac aac
audio/flac flac
audio/midi mid midi kar
audio/mp4 m4a m4b
audio/ogg oga ogg opus spx
audio/webm weba
audio/x-matroska mka
audio/x-realaudio ra
font/otf otf
font/ttf ttf
font/woff woff
font/woff2 woff2
image/apng apng
image/avif avif
image/heic heic
image/heif heif
image/jp2 jp2
image/jpeg jfif
image/jxl jxl
image/ktx2 ktx2
image/vnd.microsoft.icon cur ico
image/vnd.wap.wbmp wbmp
image/webp webp
image/x-jng jng
model/gltf+json gltf
model/gltf-binary glb
model/mtl mtl
model/obj obj
model/stl stl
model/vnd.usdz+zip usdz
text/calendar ics
text/html shtml
text/javascript cjs js mjs
text/markdown markdown md
text/plain conf ini log toml
text/turtle ttl
text/vcard vcf vcard
text/vnd.sun.j2me.app-descriptor jad
text/vnd.wap.wml wml
text/vtt vtt
text/wgsl wgsl
text/x-component htc
video/3gpp 3gp 3gpp
video/iso.segment m4s
video/mp2t ts
video/mp4 m4v mp4
video/ogg ogv
video/x-flv flv
video/x-matroska mkv
video/x-mng mng
video/x-ms-asf asf asx
video/x-ms-wmv wmv
"""

TYPES = {
    f".{extension}": kind for kind, *extensions in map(str.split, _TABLE.split("\n")[1:-1]) for extension in extensions
}
