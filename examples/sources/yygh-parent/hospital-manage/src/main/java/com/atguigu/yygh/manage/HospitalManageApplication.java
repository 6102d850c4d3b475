package com.atguigu.yygh.manage;

import com.atguigu.yygh.hosp.client.HospClient;
import com.atguigu.yygh.service.YyghService;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Import;

/** The hospitals' own side of the system. */
@SpringBootApplication
@Import(HospClient.class)
public class HospitalManageApplication {

    public static void main(String[] args) {
        YyghService.run(HospitalManageApplication.class, args);
    }
}
