"""Recognizes files whose names say that they hold keys,
tokens or passwords. They are never sent to a cluster.

Only names are checked. In doubt a file is kept back: it is listed, and can be renamed. Words such as `token`
do not count in names of code (`tokens.py`), but endings and folders of keys do.
"""

from __future__ import annotations

import re

FOLDERS = frozenset(
    {
        ".aws", ".azure", ".config", ".docker", ".gcloud", ".git", ".gnupg", ".kaggle", ".huggingface",
        ".kube", ".oci",
        ".pip", ".ssh", ".vault",
    }
)  # fmt: skip
#: Folders for such files: everything in them except code is kept back.
HOLDERS = frozenset({"credentials", "keys", "passwords", "secret", "secrets"})
NAMES = frozenset(
    {
        "_netrc", ".boto", ".dockercfg", ".dockerconfigjson", ".envrc", ".git-credentials", ".htpasswd",
        ".my.cnf",
        ".netrc", ".npmrc", ".pgpass", ".pypirc", ".s3cfg", "cookies.txt", "env.sh", "kaggle.json",
        "pip.conf",
    }
)  # fmt: skip
ENDINGS = frozenset(
    {
        "asc", "der", "gpg", "jks", "kdbx", "key", "keystore", "kubeconfig", "p12", "pem", "pfx", "ppk",
        "tfstate",
        "tfvars",
    }
)  # fmt: skip
CODE = frozenset(
    {"c", "cc", "cpp", "css", "cu", "go", "h", "html", "java", "js", "md", "py", "pyi", "pyx", "rs", "ts"}
)
#: Words of a name, separated by a mark or a capital letter.
WORDS = frozenset(
    {
        "apikey", "apikeys", "auth", "cookie", "cookies", "key", "keys", "kubeconfig", "oauth", "passphrase",
        "passwd",
        "pat", "rootkey", "secring", "token", "tokens", "vault",
    }
)  # fmt: skip
#: Parts of a name that always mark a secret.
PARTS = (
    "credential",
    "password",
    "privatekey",
    "secret",
    "serviceaccount",
    "口令",
    "令牌",
    "密码",
    "密钥",
    "凭证",
)
_COPY = re.compile(r"(\.(bak|backup|old|orig|save|sw[op]|tmp|\d+)|~)+$")
_TOKENIZER = re.compile(r"(special|added)_tokens")  # tokenizer files, which hold no credentials


def is_secret(name: str) -> bool:
    """True if a relative path with `/` has a file or folder named like a secret."""
    *folders, file = name.split("/")
    plain = _COPY.sub("", file)
    lower = plain.lower()
    ending = lower.rpartition(".")[2] if "." in lower else ""
    if FOLDERS.intersection(folders) or lower in NAMES or ending in ENDINGS or lower.startswith("id_"):
        return True
    if ending in CODE:
        return False
    if re.match(r"(.*\.)?env(\..+)?$", lower):
        return True
    return bool(HOLDERS.intersection(folder.lower() for folder in folders)) or _says_secret(plain)


def _says_secret(file: str) -> bool:
    if _TOKENIZER.match(file):
        return False
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", file)
    words = [word for word in re.split(r"[\W_]+", apart.lower()) if word]
    return bool(WORDS.intersection(words)) or any(part in "".join(words) for part in PARTS)
