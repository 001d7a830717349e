#!/bin/sh
# Make the CPU image's file system without a container runtime: rootfs.sh ROOT [EXTRAS], as root, on Debian 12, from the
# repository's root.  Then: tar -C ROOT -c . | docker import -c 'ENV PATH=/opt/lsms-rt/bin:/usr/bin' -c 'USER lsms' \
#   -c 'ENTRYPOINT ["lsms-rt"]' - lsms-rt:cpu     (apt install mmdebstrap python3-venv)
set -eu
root=$1
extras=${2:-serve,codecs}
# Debian's own Python, as in the root; manuals and translations are left out.
mmdebstrap --variant=essential --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  --include=usr-is-merged,python3-minimal,libpython3-stdlib,libstdc++6 \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  bookworm "$root" > /dev/null 2>&1
PYTHON=/usr/bin/python3 sh deploy/install.sh "$root/opt/lsms-rt" "$extras"
# In the root it stands at /opt.
sed -i "1s|#!$root/|#!/|" "$root"/opt/lsms-rt/bin/lsms-rt
mkdir "$root/opt/lsms-rt/deploy"
cp deploy/folder.sh "$root/opt/lsms-rt/deploy/"
echo 'lsms:x:10001:10001::/home/lsms:/usr/sbin/nologin' >> "$root/etc/passwd"
echo 'lsms:x:10001:' >> "$root/etc/group"
install -d -o 10001 -g 10001 "$root/home/lsms"
du -sm "$root/opt/lsms-rt" "$root"
