# Names, sizes and ranges default to those of the production brief. Where a default depends on the environment, it is
# null here and main.tf says what null means.

# --- Which deployment ---

variable "project" {
  description = "Beginning of every name."
  type        = string
  default     = "flowviz"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,9}$", var.project))
    error_message = "The project must be 2 to 10 lower-case letters, digits and dashes, beginning with a letter: longer names don't fit into a target group's 32 characters."
  }
}

variable "environment" {
  description = "Name of the deployment. `production` is the one that gets two NAT gateways, Multi-AZ, deletion protection and two nodes by default."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,11}$", var.environment))
    error_message = "The environment must be 2 to 12 lower-case letters, digits and dashes, beginning with a letter, such as staging or production."
  }
}

variable "aws_region" {
  description = "Region of everything but replicas."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2,}(-[a-z]+)+-[0-9]+$", var.aws_region))
    error_message = "The aws_region must be a region's code, such as eu-central-1."
  }
}

variable "tags" {
  description = "Further tags of everything."
  type        = map(string)
  default     = {}
}

variable "deletion_protection" {
  description = "Load balancer and database refuse to be deleted. Null: in production."
  type        = bool
  default     = null

  validation {
    condition     = !(var.environment == "production" && var.deletion_protection == false)
    error_message = "The deletion_protection can't be off in production: leave it out. Whoever means to take production down switches it off in AWS by hand first, as the guide says."
  }
}

# --- Network ---

variable "cidr" {
  description = "The VPC's IPv4 range, /16 to /24."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.cidr)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 24, false)
    error_message = "The cidr must be an IPv4 range of /16 to /24, such as 10.0.0.0/16: AWS allows no larger one, and a smaller one has no room for three tiers in two zones."
  }

  validation {
    condition     = try(cidrhost(var.cidr, 0) == split("/", var.cidr)[0], false)
    error_message = "The cidr must begin at the first address of its range: write 10.0.0.0/16, not 10.0.3.7/16."
  }
}

variable "azs" {
  description = "Two or three availability zones. Empty: the zones a and b of the region."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.azs) == 0 || (length(distinct(var.azs)) == length(var.azs) && length(var.azs) >= 2 && length(var.azs) <= 3)
    error_message = "The azs must be two or three different zones, such as [\"us-east-1a\", \"us-east-1b\"]: the load balancer and the database each need two."
  }

  validation {
    condition     = alltrue([for az in var.azs : startswith(az, var.aws_region)])
    error_message = "The azs must be zones of aws_region: write its code and a letter, or leave azs out."
  }
}

variable "public_subnets" {
  description = "Ranges of the load balancer's subnets, one for each zone; /27 at least, of which it needs eight free addresses."
  type        = list(string)
  default     = ["10.0.101.0/24", "10.0.102.0/24"]

  validation {
    condition     = alltrue([for s in var.public_subnets : can(cidrnetmask(s)) && try(tonumber(split("/", s)[1]) <= 27, false)])
    error_message = "Each of public_subnets must be an IPv4 range of /27 or larger, such as 10.0.101.0/24: a load balancer needs that much in each subnet."
  }

  validation {
    condition     = length(var.public_subnets) == (length(var.azs) == 0 ? 2 : length(var.azs))
    error_message = "The public_subnets must be as many as there are zones (azs; two where those are left out)."
  }
}

variable "private_subnets" {
  description = "Ranges of the nodes' subnets, one for each zone; /26 at least, since a rollout has two colours at once and endpoints take addresses as well."
  type        = list(string)
  default     = ["10.0.1.0/24", "10.0.2.0/24"]

  validation {
    condition     = alltrue([for s in var.private_subnets : can(cidrnetmask(s)) && try(tonumber(split("/", s)[1]) <= 26, false)])
    error_message = "Each of private_subnets must be an IPv4 range of /26 or larger, such as 10.0.1.0/24: a rollout runs both colours in them."
  }

  validation {
    condition     = length(var.private_subnets) == (length(var.azs) == 0 ? 2 : length(var.azs))
    error_message = "The private_subnets must be as many as there are zones (azs; two where those are left out)."
  }
}

variable "database_subnets" {
  description = "Ranges of the subnets of database and cache, one for each zone; /28 at least."
  type        = list(string)
  default     = ["10.0.201.0/24", "10.0.202.0/24"]

  validation {
    condition     = alltrue([for s in var.database_subnets : can(cidrnetmask(s)) && try(tonumber(split("/", s)[1]) <= 28, false)])
    error_message = "Each of database_subnets must be an IPv4 range of /28 or larger, such as 10.0.201.0/24: AWS allows no smaller subnet."
  }

  validation {
    condition     = length(var.database_subnets) == (length(var.azs) == 0 ? 2 : length(var.azs))
    error_message = "The database_subnets must be as many as there are zones (azs; two where those are left out)."
  }

  # Of all three tiers: one message for what AWS would refuse subnet by subnet, minutes into an apply.
  validation {
    condition = alltrue([
      for s in concat(var.public_subnets, var.private_subnets, var.database_subnets) :
      try(tonumber(split("/", s)[1]) >= tonumber(split("/", var.cidr)[1]) && tonumber(split("/", s)[1]) <= 28
      && cidrhost("${split("/", s)[0]}/${split("/", var.cidr)[1]}", 0) == cidrhost(var.cidr, 0), false)
    ])
    error_message = "Every subnet must lie within cidr and be no smaller than /28: change the subnets together with cidr."
  }
}

variable "single_nat_gateway" {
  description = "One NAT gateway for all zones: cheaper, and no way out for any node when its zone fails. Null: everywhere but in production."
  type        = bool
  default     = null
}

variable "interface_endpoints" {
  description = "AWS services that nodes reach without a NAT gateway, by interface endpoints that cost by the hour and zone. S3's gateway endpoint is free and always there."
  type        = set(string)
  default     = []

  validation {
    condition = length(setsubtract(var.interface_endpoints, [
      "autoscaling", "ec2messages", "ecr.api", "ecr.dkr", "elasticloadbalancing", "events", "kms", "logs", "monitoring",
      "secretsmanager", "ssm", "ssmmessages", "sts",
    ])) == 0
    error_message = "The interface_endpoints must be of autoscaling, ec2messages, ecr.api, ecr.dkr, elasticloadbalancing, events, kms, logs, monitoring, secretsmanager, ssm, ssmmessages and sts: nodes call nothing else."
  }
}

variable "flow_logs" {
  description = "Record who talked to whom in the VPC, in CloudWatch Logs."
  type        = bool
  default     = true
}

# --- Load balancer and names ---

variable "domain_name" {
  description = "Name under which users reach the application, such as wms.example.com."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain_name))
    error_message = "The domain_name must be a full DNS name in lower case without a dot at its end, such as wms.example.com."
  }
}

variable "alternative_names" {
  description = "Further names on the certificate that Terraform asks for."
  type        = list(string)
  default     = []
}

variable "zone_name" {
  description = "Route 53 zone of the account that holds domain_name, such as example.com: records and certificate validation are made in it. Null: DNS is elsewhere; certificate_domain is needed then."
  type        = string
  default     = null

  validation {
    condition     = var.zone_name == null || alltrue([for name in concat([var.domain_name], var.alternative_names) : name == var.zone_name || endswith(name, ".${coalesce(var.zone_name, "-")}")])
    error_message = "The domain_name and all alternative_names must be in zone_name: the certificate is validated by records of that zone."
  }
}

variable "certificate_domain" {
  description = "Domain of a certificate that ACM has issued already, such as *.example.com, to be used instead of one of Terraform's. Null: Terraform asks for one."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_domain != null || var.zone_name != null
    error_message = "A certificate needs zone_name, in which Terraform can prove the domain, or certificate_domain, the domain of one that ACM has issued: set one of them."
  }

  validation {
    condition = var.certificate_domain == null || coalesce(var.certificate_domain, "-") == var.domain_name || (
      startswith(coalesce(var.certificate_domain, "-"), "*.")
      && join(".", slice(split(".", var.domain_name), 1, length(split(".", var.domain_name)))) == trimprefix(coalesce(var.certificate_domain, "-"), "*.")
    )
    error_message = "The certificate_domain doesn't cover domain_name, so browsers would refuse the site: name a certificate for domain_name itself, or for * in its parent domain (a * stands for one label)."
  }
}

variable "allow_tls_1_2" {
  description = "Also take clients that can't speak TLS 1.3, such as scanners with an old Android or Windows Server 2019. Off: TLS 1.3 alone."
  type        = bool
  default     = false
}

variable "ingress_cidrs" {
  description = "Who may reach the load balancer."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.ingress_cidrs) > 0 && alltrue([for c in var.ingress_cidrs : can(cidrnetmask(c))])
    error_message = "The ingress_cidrs must be IPv4 ranges, such as 0.0.0.0/0 for everybody or 203.0.113.0/24 for an office."
  }
}

variable "test_cidrs" {
  description = "Who may choose a colour by the header X-Flowviz-Color, to test an idle one. At most four ranges; none turns the header off."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.test_cidrs) <= 4 && alltrue([for c in var.test_cidrs : can(cidrnetmask(c))])
    error_message = "The test_cidrs must be at most four IPv4 ranges: a listener rule takes five values, one of which is the header's."
  }
}

variable "app_port" {
  description = "Port on which the application serves on each node."
  type        = number
  default     = 8000

  validation {
    condition     = var.app_port > 1023 && var.app_port < 65536 && var.app_port != 9180
    error_message = "The app_port must be between 1024 and 65535, and not 9180, which is the agent's."
  }
}

variable "deregistration_delay" {
  description = "Seconds for which the load balancer lets a leaving node finish requests; those that take longer are cut off."
  type        = number
  default     = 30

  validation {
    condition     = var.deregistration_delay >= 0 && var.deregistration_delay <= 3600
    error_message = "The deregistration_delay must be 0 to 3600 seconds."
  }
}

variable "slow_start" {
  description = "Seconds in which a new node's share of requests grows to its full size: 30 to 900, or 0 for at once."
  type        = number
  default     = 30

  validation {
    condition     = var.slow_start == 0 || (var.slow_start >= 30 && var.slow_start <= 900)
    error_message = "The slow_start must be 0, or 30 to 900 seconds: AWS knows nothing between."
  }
}

variable "enable_waf" {
  description = "Put AWS WAF before the load balancer, with Amazon's common rules and a limit of requests for each address."
  type        = bool
  default     = false
}

# --- Nodes ---

variable "ami_parameter" {
  description = "Systems Manager parameter in which the image build (ssm_parameter) published the AMI's id. Null: /<project>/<environment>/ami."
  type        = string
  default     = null

  validation {
    condition     = var.ami_parameter == null || can(regex("^(/[A-Za-z0-9_.-]+)+$", var.ami_parameter))
    error_message = "The ami_parameter must be a path such as /flowviz/production/ami: the ssm_parameter of the image build."
  }
}

variable "image_owners" {
  description = "Accounts whose AMI is taken: `self`, or the id of the account that builds images."
  type        = list(string)
  default     = ["self"]
}

variable "instance_type" {
  description = "The nodes' instance type."
  type        = string
  default     = "t3.medium"
}

variable "nodes" {
  description = "Nodes of the colour that serves. Null: 2 to 4 in production, 1 to 2 elsewhere."
  type = object({
    min = number
    max = number
  })
  default = null

  validation {
    condition     = var.nodes == null || try(var.nodes.min >= 1 && var.nodes.max > var.nodes.min, false)
    error_message = "The nodes must be at least 1, and max above min: replacing a node takes one more."
  }

  validation {
    condition     = var.nodes == null || var.environment != "production" || try(var.nodes.min >= 2, false)
    error_message = "The nodes must be at least 2 in production, one for each zone: with one, its zone's failure is the application's."
  }
}

variable "first_color" {
  description = "The colour that serves first, when both groups are made. Later the rollout decides."
  type        = string
  default     = "blue"

  validation {
    condition     = contains(["blue", "green"], var.first_color)
    error_message = "The first_color must be blue or green."
  }
}

variable "hold_launches" {
  description = "Have the groups launch nothing yet: for the first apply, until secrets have values and the database is migrated."
  type        = bool
  default     = false
}

variable "root_volume_gib" {
  description = "Size of a node's disk in GiB; at least the image's."
  type        = number
  default     = 30

  validation {
    condition     = var.root_volume_gib >= 16 && var.root_volume_gib <= 1024
    error_message = "The root_volume_gib must be 16 to 1024: images are made with 16 GiB."
  }
}

variable "ebs_kms_key_arn" {
  description = "Key of the nodes' disks. Null: that of the image's snapshot. Auto Scaling's service-linked role needs a grant for a key of one's own."
  type        = string
  default     = null
}

variable "drain_budget" {
  description = "Seconds that a leaving node may take to finish its work, the longest task included."
  type        = number
  default     = 600

  validation {
    condition     = var.drain_budget >= 60 && var.drain_budget <= 172800
    error_message = "The drain_budget must be 60 to 172800 seconds: Auto Scaling waits for 48 hours at most."
  }
}

variable "launch_hook_timeout" {
  description = "Seconds without a sign of a new node's agent after which the instance is abandoned. A working agent extends them."
  type        = number
  default     = 300

  validation {
    condition     = var.launch_hook_timeout >= 120 && var.launch_hook_timeout <= 7200
    error_message = "The launch_hook_timeout must be 120 to 7200 seconds: an instance needs a minute or so until its agent runs."
  }
}

variable "termination_hook_timeout" {
  description = "Seconds without a sign of a leaving node's agent after which the instance ends all the same. A working agent extends them."
  type        = number
  default     = 300

  validation {
    condition     = var.termination_hook_timeout >= 60 && var.termination_hook_timeout <= 7200
    error_message = "The termination_hook_timeout must be 60 to 7200 seconds: the agent sends a heartbeat each third of it."
  }

  validation {
    condition     = var.drain_budget <= 100 * var.termination_hook_timeout
    error_message = "The drain_budget is longer than a hundred times termination_hook_timeout, beyond which Auto Scaling waits no longer: raise the timeout or lower the budget."
  }
}

variable "release" {
  description = "Release of the application that new nodes run, such as 2026.11.1: in their status, events and metrics, and as IMAGE_TAG for Compose. Empty: what the image says."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]{0,127}$", var.release))
    error_message = "The release must be letters, digits, dots, dashes and underscores, as a container tag is."
  }
}

variable "workload_variables" {
  description = "Further variables for the nodes' Compose files. Never a secret: user data can be read by whoever may describe the instance."
  type        = map(string)
  default     = {}
}

variable "node_secrets" {
  description = "What nodes call a secret, and where it is: the entry of `secrets` and the key in its JSON."
  type = map(object({
    secret = string
    key    = string
  }))
  default = {
    db_password    = { secret = "app", key = "db.password" }
    cache_password = { secret = "app", key = "cache.password" }
  }

  validation {
    condition     = alltrue([for s in var.node_secrets : contains(keys(var.secrets), s.secret)])
    error_message = "Each of node_secrets must name an entry of secrets: add it there, or correct the name."
  }
}

variable "event_bus_name" {
  description = "EventBridge bus of the account that nodes tell what happens to them. Null: none."
  type        = string
  default     = null
}

variable "cpu_target" {
  description = "Average processor load in percent that Auto Scaling aims at."
  type        = number
  default     = 60

  validation {
    condition     = var.cpu_target >= 10 && var.cpu_target <= 90
    error_message = "The cpu_target must be 10 to 90 percent."
  }
}

variable "requests_per_node" {
  description = "Requests a minute for each node that Auto Scaling aims at as well. Null: the processor alone decides."
  type        = number
  default     = null
}

# --- Data ---

variable "database_name" {
  description = "First database of the instance."
  type        = string
  default     = "flowviz"

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]{0,62}$", var.database_name))
    error_message = "The database_name must be lower-case letters, digits and underscores, beginning with a letter."
  }
}

variable "database_username" {
  description = "Master user. RDS makes and keeps its password; nodes log in as somebody else."
  type        = string
  default     = "flowviz_admin"
}

variable "database_instance_class" {
  description = "Null: db.t3.medium in production, db.t3.micro elsewhere."
  type        = string
  default     = null
}

variable "database_multi_az" {
  description = "A standby in a second zone. Null: in production."
  type        = bool
  default     = null
}

variable "database_storage_gib" {
  description = "Storage to begin with, and the limit to which it grows by itself, in GiB."
  type = object({
    initial = number
    max     = number
  })
  default = { initial = 100, max = 500 }

  validation {
    condition     = var.database_storage_gib.initial >= 20 && var.database_storage_gib.max >= 1.1 * var.database_storage_gib.initial
    error_message = "The database_storage_gib must begin at 20 or more, with a max at least a tenth above: RDS grows in no smaller steps."
  }
}

variable "database_backup_days" {
  description = "Days for which the database can be restored to any moment, 1 to 35."
  type        = number
  default     = 7

  validation {
    condition     = var.database_backup_days >= 1 && var.database_backup_days <= 35
    error_message = "The database_backup_days must be 1 to 35: 0 would turn backups off."
  }
}

variable "cache_node_type" {
  description = "Node type of the cache."
  type        = string
  default     = "cache.t3.micro"
}

variable "cache_version" {
  description = "Valkey's version."
  type        = string
  default     = "8.0"
}

# --- Secrets, images, buckets ---

variable "secrets" {
  description = "Entries of Secrets Manager by name, each as <project>/<environment>/<name>. Values are never Terraform's: it makes the entry, people and rotations fill it. rotation_function is the ARN of a Lambda function that rotates it."
  type = map(object({
    description       = string
    rotation_function = optional(string)
    rotation_days     = optional(number, 30)
  }))
  default = {
    app = { description = "Passwords of the application, as JSON: db.password, cache.password" }
  }

  validation {
    condition     = alltrue([for s in var.secrets : s.rotation_function == null || can(regex("^arn:aws[a-z-]*:lambda:", s.rotation_function))])
    error_message = "A rotation_function must be the ARN of a Lambda function."
  }
}

variable "repositories" {
  description = "Image repositories, each as <environment>/<name>."
  type        = set(string)
  default     = ["flowviz/app"]
}

variable "replica_region" {
  description = "Region to which backups and assets are copied. Null: none."
  type        = string
  default     = null

  validation {
    condition     = var.replica_region == null || var.replica_region != var.aws_region
    error_message = "The replica_region must be another one than aws_region: a copy in the same region goes down with it."
  }
}

variable "backup_retention_days" {
  description = "Days after which objects in the bucket of backups are deleted."
  type        = number
  default     = 35

  validation {
    condition     = var.backup_retention_days >= 7
    error_message = "The backup_retention_days must be 7 or more: a loss that is noticed after a weekend must be in reach."
  }
}

# --- Logs and alarms ---

variable "log_retention_days" {
  description = "Days for which logs are kept, of the lengths that CloudWatch offers."
  type        = number
  default     = 90

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "The log_retention_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 and 3653."
  }
}

variable "metrics_namespace" {
  description = "CloudWatch namespace of the nodes' own metrics. Null: FlowViz/<environment>."
  type        = string
  default     = null
}

variable "alarm_releases" {
  description = "Releases whose nodes must reach the database: those that serve or are about to. Each gets an alarm, which goes off when its nodes are silent, too."
  type        = set(string)
  default     = []
}

variable "alarm_emails" {
  description = "Addresses that alarms are mailed to; each is asked to confirm."
  type        = set(string)
  default     = []
}
