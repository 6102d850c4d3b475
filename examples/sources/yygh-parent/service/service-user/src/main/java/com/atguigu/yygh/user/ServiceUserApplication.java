package com.atguigu.yygh.user;

import com.atguigu.yygh.service.YyghService;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/** Users and their patients. */
@SpringBootApplication
public class ServiceUserApplication {

    public static void main(String[] args) {
        YyghService.run(ServiceUserApplication.class, args);
    }
}
